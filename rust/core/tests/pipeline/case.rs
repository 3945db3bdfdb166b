//! An import, and how it is run.

use customer_panel_core::csv::scanner::Limits;
use customer_panel_core::identity::classify::Rules;
use customer_panel_core::identity::hash::HashKeys;
use customer_panel_core::identity::known::Known;
use customer_panel_core::pipeline::Pipeline;
use customer_panel_core::pipeline::reader::{CHUNK_BYTES, Reading};
use customer_panel_core::pipeline::routing::{CHECKPOINT_BYTES, Routing};
use customer_panel_core::pipeline::source::Source;
use customer_panel_core::plan::Plan;
use customer_panel_core::values::dates::DateOrder;
use std::sync::Arc;

pub const HEADER: &[u8] = b"id,email,created at\n";
pub const IMPORT_ID: i64 = 77;
/// So small that random input meets every limit.
const TIGHT: Limits = Limits {
    field: 24,
    record: 60,
};

#[derive(Clone, Debug)]
pub struct Case {
    pub file: Vec<u8>,
    pub lanes: u32,
    pub first_lane: u32,
    pub done_to: Vec<u64>,
    pub until: Option<u64>,
    /// Identities with flags and hash; None: no map.
    pub known: Option<Vec<(u64, u8, i64)>>,
    pub rules: Rules,
    pub is_second: bool,
    pub batch_rows: usize,
    pub batch_bytes: usize,
    pub checkpoint_bytes: u64,
    pub budget: usize,
    pub hashes_blocks: bool,
    pub limits: Limits,
    /// Bytes of the file that are looked at before the pipeline starts.
    pub head: usize,
    pub chunk_bytes: usize,
    pub parsers: usize,
    /// Bytes of the buffers that the source sends, over and over.
    pub buffers: Vec<usize>,
}

impl Case {
    /// One lane, no map, one batch.
    pub fn new(records: &str) -> Case {
        Case {
            file: [HEADER, records.as_bytes()].concat(),
            lanes: 1,
            first_lane: 0,
            done_to: vec![HEADER.len() as u64],
            until: None,
            known: None,
            rules: Rules::default(),
            is_second: false,
            batch_rows: usize::MAX,
            batch_bytes: usize::MAX,
            checkpoint_bytes: CHECKPOINT_BYTES,
            budget: 64 << 20,
            hashes_blocks: true,
            limits: TIGHT,
            head: HEADER.len(),
            chunk_bytes: CHUNK_BYTES,
            parsers: 2,
            buffers: vec![CHUNK_BYTES],
        }
    }

    pub fn keys(&self) -> HashKeys {
        HashKeys::new(5, plan().mapped, false)
    }

    pub fn start(&self, source: &Source) -> Pipeline {
        self.start_with(source, self.map())
    }

    /// The map of what is known.
    pub fn map(&self) -> Option<Known> {
        let entries = self.known.as_ref()?;
        let mut known = Known::new(0, usize::MAX);
        for &(identity, flags, hash) in entries {
            known.update(identity, |_| (flags, hash, ())).unwrap();
        }
        Some(known)
    }

    pub fn start_with(&self, source: &Source, known: Option<Known>) -> Pipeline {
        let (reading, routing) = self.parts(source);
        Pipeline::start(reading, routing, known, self.budget).unwrap()
    }

    pub fn parts(&self, source: &Source) -> (Reading, Routing) {
        let reading = Reading {
            input: source.open().unwrap().expect("nobody has read it"),
            data_start: HEADER.len() as u64,
            plan: Arc::new(plan()),
            keys: self.keys(),
            limits: self.limits,
            chunk_bytes: self.chunk_bytes,
            parsers: self.parsers,
        };
        let routing = Routing {
            import_id: IMPORT_ID,
            lanes: self.lanes,
            first_lane: self.first_lane,
            done_to: self.done_to.clone(),
            until: self.until,
            batch_rows: self.batch_rows,
            batch_bytes: self.batch_bytes,
            checkpoint_bytes: self.checkpoint_bytes,
            rules: self.rules,
            is_second: self.is_second,
            header_lines: 1,
            hashes_blocks: self.hashes_blocks,
        };
        (reading, routing)
    }
}

pub fn plan() -> Plan {
    Plan::from_header(HEADER, None, &[], DateOrder::Auto)
        .unwrap()
        .0
}
