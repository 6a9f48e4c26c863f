//! What went wrong, in words.

use std::error::Error;

use doorbell_post::{Awake, NoSuchCopy};

#[test]
fn each_error_says_what_is_wrong() {
    let errors: [(Box<dyn Error>, &str); 2] = [
        (Box::new(Awake), "there is no reason to sleep"),
        (Box::new(NoSuchCopy), "there is no such copy of where the vCPU is"),
    ];
    for (error, says) in errors {
        assert_eq!(error.to_string(), says);
    }
}
