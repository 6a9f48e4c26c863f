//! What went wrong, in words.

use std::collections::BTreeSet;
use std::error::Error;

use doorbell_apic::avic::{Full, LogicalError, NoSuchVcpu, TableError};
use doorbell_apic::vmx::{MOST_SLOTS, NoSlot, TooMany};
use doorbell_apic::{Delivery, NotAMessage, NotPostable};

#[test]
fn each_error_has_words_of_its_own() {
    let errors: [Box<dyn Error>; 18] = [
        Box::new(NotAMessage),
        Box::new(NotPostable::Mode(Delivery::Nmi)),
        Box::new(NotPostable::IllegalVector(15)),
        Box::new(NotPostable::LevelWithoutEoi),
        Box::new(NotPostable::Deasserted),
        Box::new(NotPostable::Nobody),
        Box::new(NotPostable::Several),
        Box::new(NoSlot),
        Box::new(TooMany),
        Box::new(Full),
        Box::new(NoSuchVcpu),
        Box::new(TableError::Size { entries: 3 }),
        Box::new(TableError::Beyond { id: 3, last: 2 }),
        Box::new(TableError::Taken { id: 3 }),
        Box::new(LogicalError::Unrepresentable),
        Box::new(LogicalError::Everybody),
        Box::new(LogicalError::Aliased { by: 3 }),
        Box::new(LogicalError::Beyond { index: 3 }),
    ];
    let said: BTreeSet<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), errors.len(), "{said:?}");
    assert!(said.iter().all(|text| text.len() > 10), "{said:?}");
}

#[test]
fn an_error_names_what_it_is_about() {
    assert!(TooMany.to_string().contains(&MOST_SLOTS.to_string()));
    assert!(NotPostable::Mode(Delivery::Nmi).to_string().contains("Nmi"));
    assert!(NotPostable::IllegalVector(15).to_string().contains("15"));
    assert!(TableError::Size { entries: 511 }.to_string().contains("511"));
    let beyond = TableError::Beyond { id: 600, last: 511 }.to_string();
    assert!(beyond.contains("600") && beyond.contains("511"), "{beyond}");
    assert!(TableError::Taken { id: 7 }.to_string().contains('7'));
    assert!(LogicalError::Aliased { by: 9 }.to_string().contains('9'));
    assert!(LogicalError::Beyond { index: 60 }.to_string().contains("60"));
}
