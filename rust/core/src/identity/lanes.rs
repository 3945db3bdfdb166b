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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_equal_ranges_of_all_hashes() {
        for lanes in 1..=9u32 {
            let width = u64::MAX / u64::from(lanes);
            for lane in 0..lanes {
                let first = u64::from(lane) * width + u64::from(lane);
                assert_eq!(
                    lane_of(first, lanes),
                    lane,
                    "the first hash of {lane} of {lanes}"
                );
                assert_eq!(lane_of(first + width / 2, lanes), lane);
            }
            assert_eq!(lane_of(0, lanes), 0);
            assert_eq!(lane_of(u64::MAX, lanes), lanes - 1);
        }
    }

    #[test]
    fn every_hash_is_of_one_part_of_the_lanes() {
        for total in 1..=7 {
            for first in 0..total {
                for count in 1..=total - first {
                    let lanes = Lanes {
                        total,
                        first,
                        count,
                    };
                    for lane in 0..total {
                        let hash = (u64::MAX / u64::from(total)) * u64::from(lane) + (1 << 40);
                        let is_in = (first..first + count).contains(&lane);
                        assert_eq!(lanes.contains(hash), is_in, "{lanes:?} {lane}");
                    }
                }
            }
        }
    }
}
