//! Interrupts by priority: the best is found by looking for the first bit that is set.

use alloc::boxed::Box;
use alloc::vec;

use crate::groups::Groups;
use crate::interrupt::Candidates;
use crate::{Group, IntId, Priority, State, VcpuId};

/// What comes next in a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link(u16);

impl Link {
    /// That of an interrupt that is in no list.
    const FREE: Link = Link(u16::MAX);
    /// That of the last of a list, and of an empty list to its first.
    pub(crate) const END: Link = Link(u16::MAX - 1);

    #[inline]
    const fn to(id: IntId) -> Link {
        Link(id.number() as u16)
    }

    /// Returns the interrupt that comes next, if there is one.
    #[inline]
    pub(crate) const fn id(self) -> Option<IntId> {
        IntId::new(self.0 as u32)
    }
}

/// The number of a list: that of a group and a priority. The smaller is the better one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ListNumber(u32);

impl ListNumber {
    #[inline]
    pub(crate) const fn group(self) -> Group {
        if self.0 & 1 == 0 { Group::Zero } else { Group::One }
    }
}

/// What is pending and waits: a list for each priority of each group.
///
/// An interrupt that is not what it was when it came stays until it is the next to be taken: who
/// takes it looks at it. The links are the vCPU's own, so that another one may take an interrupt
/// that is in a list here.
pub(crate) struct Lists {
    /// A bit for each word that is not zero.
    summary: u8,
    /// A bit for each list that is not empty.
    words: [u64; 8],
    heads: Box<[Link]>,
    /// What comes after each interrupt, if it waits.
    links: [Link; 1024],
    /// How far a priority in the highest bits of a word is shifted to the number of its level.
    shift: u32,
    /// Those that belong to the first list.
    candidates: Candidates,
}

impl Lists {
    /// Returns the empty lists of a vCPU, for priorities of so many bits, of which there are 5 to
    /// 8.
    pub(crate) fn new(vcpu: VcpuId, priority_bits: u32) -> Self {
        let (heads, shift) = (vec![Link::END; 2 << priority_bits].into(), 64 - priority_bits);
        let candidates = Candidates::first(vcpu, priority_bits);
        Lists { summary: 0, words: [0; 8], heads, links: [Link::FREE; 1024], shift, candidates }
    }

    /// Returns which list an interrupt belongs to.
    #[inline]
    pub(crate) fn list_of(&self, state: State) -> ListNumber {
        ListNumber(state.level(self.shift) << 1 | state.group() as u32)
    }

    /// Returns the priority of what is in a list, of which the bits count that are implemented.
    #[inline]
    pub(crate) fn priority(&self, list: ListNumber) -> Priority {
        Priority((list.0 >> 1 << (self.shift - 56)) as u8)
    }

    /// Returns the candidates that belong to a list.
    #[inline]
    pub(crate) fn candidates(&self, list: ListNumber) -> Candidates {
        self.candidates.with(list.group(), self.priority(list))
    }

    /// Puts an interrupt before the others of its list, unless it is in a list already. Returns
    /// whether it was in none.
    #[inline]
    pub(crate) fn push(&mut self, list: ListNumber, id: IntId) -> bool {
        let (Some(head), link) =
            (self.heads.get_mut(list.0 as usize), &mut self.links[id.index() % 1024])
        else {
            return false;
        };
        if *link != Link::FREE {
            return false;
        }
        *link = core::mem::replace(head, Link::to(id));
        let word = &mut self.words[list.0 as usize / 64 % 8];
        if *word == 0 {
            self.summary |= 1 << (list.0 / 64 % 8);
        }
        *word |= 1 << (list.0 % 64);
        true
    }

    /// Returns the best list of these groups that is not empty.
    #[inline]
    pub(crate) fn best(&self, groups: Groups) -> Option<ListNumber> {
        // Every other list is one of group 0.
        const OF: [u64; 4] = [0, 0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa, u64::MAX];
        let of = OF[usize::from(groups.bits()) % 4];
        let mut left = self.summary;
        while left != 0 {
            let word = left.trailing_zeros();
            let lists = self.words[word as usize % 8] & of;
            if lists != 0 {
                return Some(ListNumber(word * 64 + lists.trailing_zeros()));
            }
            left &= left - 1;
        }
        None
    }

    /// Returns the first of a list.
    #[inline]
    pub(crate) fn first(&self, list: ListNumber) -> Link {
        self.heads.get(list.0 as usize).copied().unwrap_or(Link::END)
    }

    /// Says that an interrupt is in no list any more. Returns what comes after it.
    #[inline]
    pub(crate) fn unlink(&mut self, id: IntId) -> Link {
        core::mem::replace(&mut self.links[id.index() % 1024], Link::FREE)
    }

    /// Says what is the first of a list now.
    #[inline]
    pub(crate) fn set_first(&mut self, list: ListNumber, first: Link) {
        if let Some(head) = self.heads.get_mut(list.0 as usize) {
            *head = first;
        }
        if first == Link::END {
            let word = &mut self.words[list.0 as usize / 64 % 8];
            *word &= !(1 << (list.0 % 64));
            if *word == 0 {
                self.summary &= !(1 << (list.0 / 64 % 8));
            }
        }
    }

    /// Takes everything out of the lists, as one chain, whose first this returns:
    /// [`unlink`](Lists::unlink) gives the next.
    pub(crate) fn chain_all(&mut self) -> Link {
        let mut chain = Link::END;
        while let Some(list) = self.best(Groups::BOTH) {
            let mut next = self.first(list);
            while let Some(id) = next.id() {
                next = self.unlink(id);
                self.links[id.index() % 1024] = chain;
                chain = Link::to(id);
            }
            self.set_first(list, Link::END);
        }
        chain
    }
}
