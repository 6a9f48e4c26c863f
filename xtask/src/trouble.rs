//! Why a task was not done.

/// Why a task was not done.
pub enum Trouble {
    /// Something does not work.
    Failed(String),
    /// Something is not there, and how to get it.
    Missing(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Trouble::Failed(why)
    }
}
