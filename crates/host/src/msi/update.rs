//! How a device's message is changed while the device may send it.
//!
//! A message is two or three 32-bit words in the device, written one after the other, and the
//! device may send what it has at any moment. If it sends the address of one message with the data
//! of another, the interrupt arrives on a CPU as a vector that means nothing there, or something
//! else (known race V01: Linux 6f1a4891a592).

use doorbell_platform::Vector;

use crate::msi::MsiMessage;

/// A word of a message, as the device has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// Bits 31:0 of the address.
    Address,
    /// Bits 63:32 of the address.
    UpperAddress,
    /// The data.
    Data,
}

/// The device cannot mask the interrupt, and both words of its address change: on the way it would
/// send to an address that is neither.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeedsMask;

impl core::fmt::Display for NeedsMask {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(
            "the address of a message cannot change in both words unless the device masks it",
        )
    }
}

impl core::error::Error for NeedsMask {}

/// A part of a change. When it is done, the device sends `message` and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Whether the device has to mask the interrupt while the words are written. If not, there is
    /// one word.
    pub masked: bool,
    /// What the device sends from then on.
    pub message: MsiMessage,
    from: MsiMessage,
}

impl Step {
    /// The words to be written, in this order.
    pub fn words(&self) -> impl Iterator<Item = (Word, u32)> + use<> {
        changes(self.from, self.message).into_iter().flatten()
    }
}

/// The device may have sent the new vector to the former CPU, where it is nobody's.
///
/// Whoever changes the message does so on that CPU, with interrupts off from before the first step
/// on, so that such an interrupt waits in the IRR: no other CPU can read it. After the last step,
/// if the vector is in the IRR, the interrupt is to be sent again, to the CPU where it goes now. It
/// may be another's, if the vector is in use there, or have been sent twice; each of these is one
/// interrupt too many, and none too few.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "an interrupt that waits in the former CPU's IRR is found by nobody else"]
pub struct CheckIrr(pub Vector);

/// A change of a message. Of messages in compatibility format, whose data is the vector; where
/// interrupts are remapped, the entry is changed, and not the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "the device has its former message until the steps are done"]
pub struct MessageUpdate {
    first: Option<Step>,
    second: Option<Step>,
}

impl MessageUpdate {
    /// Plans the change from what a device sends to what it is to send. `can_mask` says whether the
    /// device can mask the interrupt.
    ///
    /// # Errors
    /// If the change cannot be made without masking.
    pub fn new(from: MsiMessage, to: MsiMessage, can_mask: bool) -> Result<Self, NeedsMask> {
        let changed = changes(from, to).iter().flatten().count();
        let whole = Step { masked: changed > 1, message: to, from };
        if changed == 0 {
            return Ok(MessageUpdate { first: None, second: None });
        }
        if changed == 1 || can_mask {
            return Ok(MessageUpdate { first: Some(whole), second: None });
        }
        // The data first, because whoever does it looks at the IRR of the former CPU, which is its
        // own.
        let via = MsiMessage { data: to.data, ..from };
        if changes(via, to).iter().flatten().count() > 1 {
            return Err(NeedsMask);
        }
        let step = |from, message| Some(Step { masked: false, message, from });
        Ok(MessageUpdate { first: step(from, via), second: step(via, to) })
    }

    /// Has `write` do what is to be done: no step if the messages are the same, one, or two.
    /// Returns what has to be looked at after the last one.
    ///
    /// # Context
    /// On the CPU that the former message names, with interrupts off until the IRR was looked at,
    /// if the device cannot mask; otherwise any task. Sleeps if `write` does.
    #[must_use = "an interrupt that waits in the former CPU's IRR is found by nobody else"]
    pub fn apply(self, write: impl FnMut(Step)) -> Option<CheckIrr> {
        self.first.into_iter().chain(self.second).for_each(write);
        self.second.map(|last| CheckIrr(Vector(last.message.data as u8)))
    }
}

/// The words that differ, as `to` has them.
fn changes(from: MsiMessage, to: MsiMessage) -> [Option<(Word, u32)>; 3] {
    let words = |message: MsiMessage| {
        [message.address as u32, (message.address >> 32) as u32, message.data]
    };
    let [address, upper, data] = words(to);
    let [a, b, c] = words(from);
    let differs = |word, from, to| (from != to).then_some((word, to));
    [
        differs(Word::Address, a, address),
        differs(Word::UpperAddress, b, upper),
        differs(Word::Data, c, data),
    ]
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::msi::DestinationIds::Eight;
    use crate::msi::message::to_cpu;

    fn to(cpu: u32, vector: u8) -> MsiMessage {
        to_cpu(cpu, Vector(vector), Eight).unwrap()
    }

    /// What is written, and what is to be looked at after that.
    fn applied(from: MsiMessage, to: MsiMessage, can_mask: bool) -> (Vec<Step>, Option<CheckIrr>) {
        let mut steps = Vec::new();
        let looks = MessageUpdate::new(from, to, can_mask).unwrap().apply(|step| steps.push(step));
        (steps, looks)
    }

    #[test]
    fn a_device_that_cannot_mask_gets_the_new_vector_first_and_the_old_cpu_looks_at_its_irr() {
        let (steps, looks) = applied(to(1, 0x41), to(2, 0x51), false);
        let steps: Vec<_> = steps.iter().map(|step| (step.masked, step.message)).collect();
        assert_eq!(steps, [(false, to(1, 0x51)), (false, to(2, 0x51))]);
        assert_eq!(looks, Some(CheckIrr(Vector(0x51))));
    }

    #[test]
    fn a_device_that_can_mask_is_masked_for_two_words_and_not_for_one() {
        let (steps, _) = applied(to(1, 0x41), to(2, 0x51), true);
        assert_eq!((steps.len(), steps[0].masked), (1, true));
        assert_eq!(
            steps[0].words().collect::<Vec<_>>(),
            [(Word::Address, 0xfee0_2000), (Word::Data, 0x51)]
        );
        for can_mask in [false, true] {
            let step = Step { masked: false, message: to(2, 0x41), from: to(1, 0x41) };
            assert_eq!(applied(to(1, 0x41), to(2, 0x41), can_mask), ([step].to_vec(), None));
        }
    }

    #[test]
    fn an_address_that_changes_in_both_words_needs_a_mask() {
        let far = MsiMessage { address: 0x1_fee0_2000, data: 0x41 };
        assert_eq!(MessageUpdate::new(to(1, 0x41), far, false), Err(NeedsMask));
        assert!(MessageUpdate::new(to(1, 0x41), far, true).is_ok());
    }

    fn message() -> impl Strategy<Value = MsiMessage> {
        let half = || prop_oneof![Just(0u32), Just(1 << 12), any::<u32>()];
        (half(), half(), half()).prop_map(|(low, high, data)| MsiMessage {
            address: u64::from(high) << 32 | u64::from(low),
            data,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the device can send on the way: after each word, unless it is masked.
        #[test]
        fn every_message_on_the_way_is_one_of_the_two_or_the_new_data_to_the_old_address(
            from in message(), to in message(), can_mask: bool,
        ) {
            let Ok(update) = MessageUpdate::new(from, to, can_mask) else {
                prop_assert!(!can_mask && from.address as u32 != to.address as u32
                    && from.address >> 32 != to.address >> 32);
                return Ok(());
            };
            let mut device = from;
            let mut mixed = false;
            let mut steps = Vec::new();
            let looks = update.apply(|step| steps.push(step));
            for step in steps {
                prop_assert!(can_mask || !step.masked);
                for (word, value) in step.words() {
                    match word {
                        Word::Address => device.address = device.address >> 32 << 32 | u64::from(value),
                        Word::UpperAddress => device.address = device.address as u32 as u64 | u64::from(value) << 32,
                        Word::Data => device.data = value,
                    }
                    let via = MsiMessage { data: to.data, ..from };
                    prop_assert!(step.masked || [from, to, via].contains(&device), "{device:?}");
                    mixed |= !step.masked && device != from && device != to;
                }
                prop_assert_eq!(device, step.message);
            }
            prop_assert_eq!(device, to);
            prop_assert_eq!(looks.is_some(), mixed);
        }
    }
}
