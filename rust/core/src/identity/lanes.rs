//! Which lane a row belongs to. A lane is a range of the lane hash.

/// The lane of an identity among `lanes`.
pub fn lane_of(lane_hash: u64, lanes: u32) -> u32 {
    ((u128::from(lane_hash) * u128::from(lanes)) >> 64) as u32
}

/// Rejects have no identity; they belong to the first lane.
pub const REJECT_LANE: u32 = 0;

/// The lanes whose identities a map holds.
#[derive(Clone, Copy, Debug)]
pub struct Lanes {
    pub total: u32,
    pub first: u32,
    pub count: u32,
}

impl Lanes {
    pub fn contains(&self, lane_hash: u64) -> bool {
        let lane = lane_of(lane_hash, self.total);
        self.first <= lane && lane - self.first < self.count
    }
}
