//! What the sequencer needs to know of a run: its lanes, how far each is, and where a batch ends.

use crate::identity::classify::Rules;

/// After so many bytes of the file a lane closes its batch, so that an interrupted import repeats no more than these.
/// Larger batches are closed earlier; only lanes with few rows reach this.
pub const CHECKPOINT_BYTES: u64 = 64 << 20;

/// How rows become batches.
#[derive(Clone, Debug)]
pub struct Routing {
    pub import_id: i64,
    /// Lanes of the whole import; a lane is a range of the lane hash.
    pub lanes: u32,
    /// The lanes of this run: `first_lane` and as many as `done_to` has entries.
    pub first_lane: u32,
    /// For each lane of this run, the offset up to which it is done.
    pub done_to: Vec<u64>,
    /// Rows that begin at or behind this offset are not read.
    pub until: Option<u64>,
    pub batch_rows: usize,
    pub batch_bytes: usize,
    /// A lane closes its batch, even an empty one, when so many bytes of the file have passed: [`CHECKPOINT_BYTES`].
    pub checkpoint_bytes: u64,
    pub rules: Rules,
    /// The second reading: parks the rows of customers whose chain has changed, and does nothing else.
    pub is_second: bool,
    /// Line ends before the first record.
    pub header_lines: u64,
    /// Off only to measure what it costs.
    pub hashes_blocks: bool,
}
