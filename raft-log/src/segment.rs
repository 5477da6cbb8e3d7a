//! One file.

use crate::error::LogError;
use crate::index::Place;
use crate::log::Record;

pub(crate) struct Segment {
    sequence: u32,
}

impl Segment {
    pub(crate) fn sequence(&self) -> u32 {
        self.sequence
    }

    pub(crate) fn read_records(&self, _places: &[(u64, Place)], _records: &mut Vec<Record>) -> Result<(), LogError> {
        Err(LogError::OwnerGone)
    }
}
