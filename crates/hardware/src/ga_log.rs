//! The log of guest interrupts of an AMD I/O MMU (48882, guest virtual APIC log).

use std::collections::VecDeque;

use doorbell_explore::Ended;
use doorbell_explore::sim::{Model, note};

/// Entries that nobody has read yet: the tags of IRTEs.
pub struct GaLog(Model<Log>);

doorbell_platform::opaque_debug!([] GaLog);

struct Log {
    entries: VecDeque<u32>,
    capacity: usize,
    /// Entries are dropped until it is restarted.
    overflow: bool,
}

impl GaLog {
    /// Creates an empty log.
    #[track_caller]
    pub fn new(capacity: usize) -> Self {
        GaLog(Model::new("GA log", Log { entries: VecDeque::new(), capacity, overflow: false }))
    }

    /// Writes an entry, as the IOMMU does, or drops it if there is no room.
    #[track_caller]
    pub fn write(&self, tag: u32) {
        self.0.change(|log| {
            log.overflow |= log.entries.len() == log.capacity;
            if !log.overflow {
                log.entries.push_back(tag);
            }
        });
        note(|| format!("logs tag {tag}"));
    }

    /// Reads the tag of the next entry; `None` if there is no other, and some were dropped.
    ///
    /// # Errors
    /// When the run is over.
    #[track_caller]
    pub fn read(&self) -> Result<Option<u32>, Ended> {
        self.0.serve(|log| log.overflow || !log.entries.is_empty(), |log| log.entries.pop_front())
    }

    /// Returns whether all entries were read, and none was dropped.
    #[track_caller]
    pub fn is_empty(&self) -> bool {
        self.0.observe(|log| log.entries.is_empty() && !log.overflow)
    }

    /// Entries are written again.
    #[track_caller]
    pub fn restart(&self) {
        self.0.change(|log| log.overflow = false);
    }
}
