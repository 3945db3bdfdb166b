//! Makes customer files: the same bytes for the same options on every machine.
//!
//! Row `i` is a function of (options, `i`) and of nothing before it, so chunks of any size join
//! to the same file, and each kind of trouble draws from a stream of its own: a file with
//! `changed: 0.01` is the file with `changed: 0.0` but for 1 % of its rows.

mod cells;
mod damage;
mod draw;
mod record;
mod words;

use cells::{COLUMNS, Column};
use draw::{Key, Ratio};
use record::Record;

/// What to generate. Shares are of all rows, each row decided by itself; outside of 0..=1 they
/// count as the nearer end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Data records in the file, the header not among them.
    pub rows: u64,
    /// Adds the column `About Customer`, 850 bytes on average with quotes, commas and line breaks.
    pub about: bool,
    pub seed: u64,
    /// Share of the rows that repeat the identity of an earlier row, up to 2^20 rows away, with
    /// some fields different and some blank.
    pub duplicates: f64,
    /// Share of the rows with one thing wrong; about a third of these cannot be imported.
    pub dirty: f64,
    /// Share of the rows with one to three fields altered. Identity, order and all other rows stay.
    pub changed: f64,
}

impl Options {
    /// A clean file of `rows` different customers.
    pub fn new(rows: u64, seed: u64) -> Options {
        Options {
            rows,
            about: false,
            seed,
            duplicates: 0.0,
            dirty: 0.0,
            changed: 0.0,
        }
    }
}

/// Streams of draws, by name. A new one gets a new number: the old files stay as they are.
const CUSTOMERS: u64 = 1;
const DUPLICATES: u64 = 2;
const VARIANTS: u64 = 3;
const DIRT: u64 = 4;
const CHANGES: u64 = 5;

/// Bytes of the longest undamaged row, rounded up: room is made once a row, not once a cell.
const ROW_BYTES: usize = 3 << 10;

/// Fields that an alteration may touch: none that is, or can stand in for, the identity.
const CHANGEABLE: [Column; 9] = [
    Column::Phone1,
    Column::City,
    Column::Company,
    Column::Phone2,
    Column::Country,
    Column::LastName,
    Column::SubscriptionDate,
    Column::Website,
    Column::AboutCustomer,
];

pub struct Generator {
    rows: u64,
    columns: usize,
    seed: u64,
    duplicates: Ratio,
    dirty: Ratio,
    changed: Ratio,
    customers: Key,
    duplicate_draws: Key,
    variants: Key,
    dirt: Key,
    changes: Key,
    is_header_written: bool,
    next: u64,
    record: Record,
}

impl Generator {
    pub fn new(options: Options) -> Generator {
        let stream = |name| Key::stream(options.seed, name);
        Generator {
            rows: options.rows,
            columns: COLUMNS.len() - usize::from(!options.about),
            seed: options.seed,
            duplicates: Ratio::new(options.duplicates),
            dirty: Ratio::new(options.dirty),
            changed: Ratio::new(options.changed),
            customers: stream(CUSTOMERS),
            duplicate_draws: stream(DUPLICATES),
            variants: stream(VARIANTS),
            dirt: stream(DIRT),
            changes: stream(CHANGES),
            is_header_written: false,
            next: 0,
            record: Record::new(),
        }
    }

    /// Appends the next whole rows, `at_least` bytes of them if the file has that many left; the
    /// header comes first. False when nothing was left to append.
    pub fn fill(&mut self, out: &mut Vec<u8>, at_least: usize) -> bool {
        let start = out.len();
        let enough = start.saturating_add(at_least.max(1));
        if !self.is_header_written {
            self.is_header_written = true;
            let names: Vec<&str> = COLUMNS[..self.columns]
                .iter()
                .map(|(_, name)| *name)
                .collect();
            out.extend_from_slice(names.join(",").as_bytes());
            out.push(b'\n');
        }
        while out.len() < enough && self.next < self.rows {
            out.reserve(ROW_BYTES);
            self.row(self.next, out);
            self.next += 1;
        }
        out.len() > start
    }

    /// Data records appended so far.
    pub fn rows_written(&self) -> u64 {
        self.next
    }

    fn row(&mut self, row: u64, out: &mut Vec<u8>) {
        let identity = self.identity(row);
        let is_changed = self.changes.hits(row, self.changed);
        let is_dirty = self.dirt.hits(row, self.dirty);
        if identity == row && !is_changed && !is_dirty {
            let customer = self.customers.at(identity);
            cells::index(row, out);
            out.push(b',');
            cells::customer_id(self.seed, identity, customer.draw(0), out);
            for (column, _) in &COLUMNS[2..self.columns] {
                out.push(b',');
                cells::write(*column, customer.draw(*column as usize), out);
            }
            out.push(b'\n');
            return;
        }
        self.compose(row, identity);
        if identity != row {
            self.vary(row);
        }
        if is_changed {
            self.change(row);
        }
        if is_dirty {
            damage::damage(self.dirt.at(row), &mut self.record);
        }
        self.record.write(out);
    }

    /// The row that introduced the customer of this row: itself, unless it is a duplicate.
    fn identity(&self, mut row: u64) -> u64 {
        while row > 0 && self.duplicate_draws.hits(row, self.duplicates) {
            // Near and far alike: each power of two of distance is equally likely.
            let mut draw = self.duplicate_draws.at(row).draw(0);
            let reach = 1 << draw.below(21);
            row -= 1 + draw.below(row.min(reach));
        }
        row
    }

    /// The clean row, cell by cell.
    fn compose(&mut self, row: u64, identity: u64) {
        let customer = self.customers.at(identity);
        let record = &mut self.record;
        record.reset(self.columns);
        cells::index(row, record.cell(Column::Index));
        cells::customer_id(
            self.seed,
            identity,
            customer.draw(0),
            record.cell(Column::CustomerId),
        );
        for (column, _) in &COLUMNS[2..self.columns] {
            cells::write(
                *column,
                customer.draw(*column as usize),
                record.cell(*column),
            );
        }
    }

    /// What a second record of a customer says differently, or not at all.
    fn vary(&mut self, row: u64) {
        let variant = self.variants.at(row);
        for (column, _) in &COLUMNS[2..self.columns] {
            let cell = self.record.cell(*column);
            match variant.draw(*column as usize + COLUMNS.len()).below(16) {
                0..=2 => cell.clear(),
                3..=5 => {
                    cell.clear();
                    cells::write(*column, variant.draw(*column as usize), cell);
                }
                _ => {}
            }
        }
    }

    /// Gives one to three cells another value than they have.
    fn change(&mut self, row: u64) {
        let change = self.changes.at(row);
        let mut draw = change.draw(0);
        let candidates = CHANGEABLE.len() - (COLUMNS.len() - self.columns);
        let first = draw.below(candidates as u64) as usize;
        let count = 1 + draw.below(3) as usize;
        for n in 0..count {
            let column = CHANGEABLE[(first + n) % candidates];
            let cell = self.record.cell(column);
            let old = std::mem::take(cell);
            // Country and date have few values: draw until it is another one.
            let mut attempt = 1;
            while cell.is_empty() || *cell == old {
                cell.clear();
                cells::write(column, change.at(attempt).draw(column as usize), cell);
                attempt += 1;
            }
        }
    }
}
