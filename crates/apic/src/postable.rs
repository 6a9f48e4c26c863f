//! The messages that can be posted. Those that cannot take the way through the host's interrupt
//! handler: remapped delivery, and the vCPUs' APICs in software.

use core::fmt;

use crate::{ApicTable, Delivery, GuestVector, InterruptMessage, TriggerMode, Who};

/// Whether the guest's EOI of the vector exits.
///
/// It has to be so before a level-triggered interrupt is posted: hardware that posts knows edges
/// only, and nobody would tell the source that the guest is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Eoi {
    /// The EOI exits: the vector's bit in the EOI-exit bitmap was set, and the vCPU has seen it.
    Intercepted,
    /// The EOI does not exit, or nobody knows.
    NotIntercepted,
}

/// A message that can be posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "Posted")]
pub struct PostableMessage<'a, T> {
    /// The vCPU to post to.
    pub target: &'a T,
    /// The bit to post.
    pub vector: GuestVector,
}

/// Why a message cannot be posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[doc(alias = "Remapped")]
pub enum NotPostable {
    /// The message is not an interrupt with a vector of its own.
    Mode(Delivery),
    /// The message's vector is below 16.
    IllegalVector(u8),
    /// The message is level-triggered, and nobody would see its EOI.
    LevelWithoutEoi,
    /// The message says that a line is down.
    Deasserted,
    /// The message is for none of the vCPUs.
    Nobody,
    /// The message is for several vCPUs: all of them, or the one of them with the lowest priority.
    Several,
}

impl fmt::Display for NotPostable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotPostable::Mode(delivery) => {
                write!(f, "delivery mode {delivery:?} is no interrupt with a vector")
            }
            NotPostable::IllegalVector(vector) => write!(f, "vector {vector} is below 16"),
            NotPostable::LevelWithoutEoi => {
                f.write_str("nobody would see the EOI of the level-triggered interrupt")
            }
            NotPostable::Deasserted => f.write_str("the message says that a line is down"),
            NotPostable::Nobody => f.write_str("the message is for none of the vCPUs"),
            NotPostable::Several => f.write_str("the message is for several vCPUs"),
        }
    }
}

impl core::error::Error for NotPostable {}

/// Decides whether a message can be posted.
///
/// # Errors
/// If it cannot be posted, with the reason.
#[inline]
pub fn postable<'a, T>(
    message: &InterruptMessage,
    table: &'a ApicTable<T>,
    eoi: Eoi,
) -> Result<PostableMessage<'a, T>, NotPostable> {
    if !matches!(message.delivery, Delivery::Fixed | Delivery::LowestPriority) {
        return Err(NotPostable::Mode(message.delivery));
    }
    let vector = message.legal_vector().ok_or(NotPostable::IllegalVector(message.vector))?;
    match (message.trigger, eoi) {
        (TriggerMode::Edge, _) | (TriggerMode::Level { asserted: true }, Eoi::Intercepted) => {}
        (TriggerMode::Level { asserted: false }, _) => return Err(NotPostable::Deasserted),
        (TriggerMode::Level { asserted: true }, Eoi::NotIntercepted) => {
            return Err(NotPostable::LevelWithoutEoi);
        }
    }
    // The way that has to be short: one step, without a detour by `Who`.
    if let Some(target) = table.direct(message.destination, message.mode) {
        return Ok(PostableMessage { target, vector });
    }
    match table.ask_all(message.destination, message.mode) {
        // Of one target, the one with the lowest priority is that one.
        Who::One(target) => Ok(PostableMessage { target, vector }),
        Who::Nobody => Err(NotPostable::Nobody),
        Who::Several => Err(NotPostable::Several),
    }
}

#[cfg(test)]
mod tests {
    use doorbell_platform::MsiMessage;

    use super::*;
    use crate::{DestinationIds, DestinationMode, LogicalIds, Registers};

    fn decide(address: u64, data: u32, eoi: Eoi) -> Result<(u32, u8), NotPostable> {
        let member = |id: u8| Registers::XApic { id, logical: 1 << id, format: LogicalIds::Flat };
        let table = ApicTable::new([(member(0), 10), (member(1), 11)]);
        let message =
            InterruptMessage::decode(MsiMessage::new(address, data), DestinationIds::Eight)
                .unwrap();
        postable(&message, &table, eoi).map(|posted| (*posted.target, posted.vector.number()))
    }

    const ONE: u64 = 0xfee0_1000;
    const LOGICAL: u64 = 0xfee0_0004;

    #[test]
    fn an_edge_to_one_vcpu_is_posted_however_it_is_addressed() {
        for (address, data) in
            [(ONE, 0x41), (LOGICAL | 2 << 12, 0x41), (LOGICAL | 2 << 12, 0x141), (ONE | 8, 0x41)]
        {
            assert_eq!(decide(address, data, Eoi::NotIntercepted), Ok((11, 0x41)));
        }
    }

    #[test]
    fn what_is_for_several_or_nobody_is_remapped() {
        assert_eq!(decide(LOGICAL | 3 << 12, 0x41, Eoi::Intercepted), Err(NotPostable::Several));
        assert_eq!(decide(LOGICAL | 3 << 12, 0x141, Eoi::Intercepted), Err(NotPostable::Several));
        assert_eq!(decide(0xfeef_f000, 0x41, Eoi::Intercepted), Err(NotPostable::Several));
        assert_eq!(decide(0xfee0_7000, 0x41, Eoi::Intercepted), Err(NotPostable::Nobody));
    }

    #[test]
    fn a_level_is_posted_only_if_its_eoi_is_intercepted() {
        assert_eq!(decide(ONE, 0xc041, Eoi::NotIntercepted), Err(NotPostable::LevelWithoutEoi));
        assert_eq!(decide(ONE, 0xc041, Eoi::Intercepted), Ok((11, 0x41)));
        assert_eq!(decide(ONE, 0x8041, Eoi::Intercepted), Err(NotPostable::Deasserted));
    }

    #[test]
    fn what_is_no_interrupt_or_has_no_legal_vector_is_remapped() {
        for (data, mode) in
            [(0x200, Delivery::Smi), (0x400, Delivery::Nmi), (0x741, Delivery::ExtInt)]
        {
            assert_eq!(decide(ONE, data, Eoi::Intercepted), Err(NotPostable::Mode(mode)));
        }
        assert_eq!(
            decide(ONE, 0x300, Eoi::Intercepted),
            Err(NotPostable::Mode(Delivery::Reserved))
        );
        assert_eq!(decide(ONE, 0x0f, Eoi::Intercepted), Err(NotPostable::IllegalVector(15)));
    }

    #[test]
    fn a_logical_destination_in_a_message_is_understood_by_each_apic() {
        let table = ApicTable::new([(Registers::X2Apic { id: 4 }, ())]);
        let mode = DestinationMode::Logical;
        let message = InterruptMessage {
            destination: 1 << 4,
            mode,
            ..InterruptMessage::decode(MsiMessage::new(ONE, 0x41), DestinationIds::Eight).unwrap()
        };
        assert!(postable(&message, &table, Eoi::NotIntercepted).is_ok());
    }
}
