//! How many interrupts of a vCPU are where.

use crate::groups::Groups;

/// How many interrupts of a vCPU are where: all that says whether there is anything to do for it,
/// in one word, which is zero if there is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts(u64);

/// How many wait in a list: 16 bits.
const QUEUED: u32 = 0;
/// How many are active: 16 bits.
const ACTIVE: u32 = 16;
/// How many are in list registers, and not folded yet: 8 bits.
const LISTED: u32 = 32;
/// From which list register on all are clear: invalid, and asking for no maintenance. 8 bits.
const STALE: u32 = 40;
/// The groups of which the vCPU takes no part in what any may have: 2 bits.
const APART: u32 = 48;
/// Others are to be told something: 1 bit.
const TELLS: u32 = 50;
/// An interrupt in the lists may be in the wrong one: 1 bit.
const RELIST: u32 = 51;
/// LPIs wait in their lists: 1 bit.
const LPIS: u32 = 52;

impl Counts {
    pub(crate) const ZERO: Counts = Counts(0);

    #[inline]
    const fn field(self, at: u32, mask: u64) -> u64 {
        self.0 >> at & mask
    }

    #[inline]
    const fn put(self, at: u32, mask: u64, value: u64) -> Counts {
        Counts(self.0 & !(mask << at) | (value & mask) << at)
    }

    /// Returns whether there is nothing to do.
    #[inline]
    pub(crate) const fn are_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns that so many list registers are filled, and there is nothing else to do.
    #[inline]
    pub(crate) const fn of_list_registers(listed: usize) -> Counts {
        Counts((listed as u64 & 0xff) << LISTED | (listed as u64 & 0xff) << STALE)
    }

    /// Returns whether none waits in a list, nor for the vCPU to take part.
    #[inline]
    pub(crate) const fn none_waits(self) -> bool {
        self.0 & (0xffff << QUEUED | 3 << APART | 1 << RELIST | 1 << LPIS) == 0
    }

    /// Returns whether there is nothing to do but to clear list registers.
    #[inline]
    pub(crate) const fn are_of_stale(self) -> bool {
        self.0 & !(0xff << STALE) == 0
    }

    /// Returns whether nothing is in a list register, nor to be told.
    #[inline]
    pub(crate) const fn are_of_active(self) -> bool {
        self.0 & (0xff << LISTED | 1 << TELLS) == 0
    }

    /// Returns whether there is nothing to do but to place what waits in the lists, no LPIs, beside
    /// what is active.
    #[inline]
    pub(crate) const fn are_of_lists(self) -> bool {
        self.0 & (3 << APART | 1 << RELIST | 1 << LPIS) == 0
    }

    /// Returns how many wait in a list.
    #[inline]
    pub(crate) const fn queued(self) -> u32 {
        self.field(QUEUED, 0xffff) as u32
    }

    /// Takes note that one more waits in a list.
    #[inline]
    pub(crate) const fn queues(&mut self) {
        self.0 = self.0.wrapping_add(1 << QUEUED);
    }

    /// Takes note that some of those that wait in a list wait no more.
    #[inline]
    pub(crate) const fn unqueues(&mut self, some: u32) {
        self.0 = self.0.wrapping_sub((some as u64) << QUEUED);
    }

    /// Takes note that none waits in a list.
    #[inline]
    pub(crate) const fn unqueues_all(&mut self) {
        *self = self.put(QUEUED, 0xffff, 0);
    }

    /// Returns how many are active.
    #[inline]
    pub(crate) const fn active(self) -> u32 {
        self.field(ACTIVE, 0xffff) as u32
    }

    /// Takes note that one more is active.
    #[inline]
    pub(crate) const fn activates(&mut self) {
        self.0 = self.0.wrapping_add(1 << ACTIVE);
    }

    /// Takes note that one of those that are active is so no more.
    #[inline]
    pub(crate) const fn deactivates(&mut self) {
        self.0 = self.0.wrapping_sub(1 << ACTIVE);
    }

    /// Returns how many are in list registers, and not folded yet.
    #[inline]
    pub(crate) const fn listed(self) -> usize {
        self.field(LISTED, 0xff) as usize
    }

    /// Returns from which list register on all are clear.
    #[inline]
    pub(crate) const fn stale(self) -> usize {
        self.field(STALE, 0xff) as usize
    }

    /// Takes note that so many list registers are filled, and no others say anything.
    #[inline]
    pub(crate) const fn lists(&mut self, listed: usize) {
        self.0 = self.0 & !(0xffff << LISTED) | Counts::of_list_registers(listed).0;
    }

    /// Takes note that all list registers are folded, and clear from one on.
    #[inline]
    pub(crate) const fn unlists(&mut self, stale: usize) {
        *self = self.put(LISTED, 0xffff, (stale as u64 & 0xff) << (STALE - LISTED));
    }

    /// Returns the groups that the guest was seen to have disabled when there was an interrupt that
    /// any vCPU may have: the vCPU takes no part in those.
    #[inline]
    pub(crate) const fn apart(self) -> Groups {
        Groups::from_bits(self.0 >> APART)
    }

    #[inline]
    pub(crate) const fn set_apart(&mut self, groups: Groups) {
        *self = self.put(APART, 3, groups.bits() as u64);
    }

    /// Returns whether others are to be told something.
    #[inline]
    pub(crate) const fn tells(self) -> bool {
        self.field(TELLS, 1) != 0
    }

    #[inline]
    pub(crate) const fn set_tells(&mut self, tells: bool) {
        *self = self.put(TELLS, 1, tells as u64);
    }

    /// Returns whether LPIs wait in their lists.
    #[inline]
    pub(crate) const fn lpis(self) -> bool {
        self.field(LPIS, 1) != 0
    }

    #[inline]
    pub(crate) const fn set_lpis(&mut self, lpis: bool) {
        *self = self.put(LPIS, 1, lpis as u64);
    }

    /// Returns whether an interrupt in the lists may be in the wrong one.
    #[inline]
    pub(crate) const fn relists(self) -> bool {
        self.field(RELIST, 1) != 0
    }

    #[inline]
    pub(crate) const fn set_relists(&mut self, relists: bool) {
        *self = self.put(RELIST, 1, relists as u64);
    }
}
