//! A record whose cells can still be altered, for the few rows that need it. Cells hold their
//! bytes as written: quotes around them and doubled quotes included.

use super::cells::{COLUMNS, Column};

pub(super) struct Record {
    cells: [Vec<u8>; COLUMNS.len()],
    /// Written after the last cell, separators included.
    pub(super) surplus: &'static [u8],
    pub(super) ending: &'static [u8],
    /// Cells written; the rest of the row is missing.
    pub(super) kept: usize,
}

impl Record {
    pub(super) fn new() -> Record {
        Record {
            cells: Default::default(),
            surplus: b"",
            ending: b"\n",
            kept: 0,
        }
    }

    /// An undamaged record of `columns` empty cells, in the memory of the last one.
    pub(super) fn reset(&mut self, columns: usize) {
        self.cells.iter_mut().for_each(Vec::clear);
        (self.surplus, self.ending, self.kept) = (b"", b"\n", columns);
    }

    pub(super) fn cell(&mut self, column: Column) -> &mut Vec<u8> {
        &mut self.cells[column as usize]
    }

    pub(super) fn set(&mut self, column: Column, bytes: &[u8]) {
        let cell = self.cell(column);
        cell.clear();
        cell.extend_from_slice(bytes);
    }

    /// Puts a cell in quotes unless it is.
    pub(super) fn quote(&mut self, column: Column) {
        let cell = self.cell(column);
        if cell.first() != Some(&b'"') {
            cell.insert(0, b'"');
            cell.push(b'"');
        }
    }

    pub(super) fn prepend_inside(&mut self, column: Column, bytes: &[u8]) {
        let cell = self.cell(column);
        let at = usize::from(cell.first() == Some(&b'"'));
        cell.splice(at..at, bytes.iter().copied());
    }

    pub(super) fn append_inside(&mut self, column: Column, bytes: &[u8]) {
        let cell = self.cell(column);
        let at = cell.len() - usize::from(cell.first() == Some(&b'"'));
        cell.splice(at..at, bytes.iter().copied());
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (n, cell) in self.cells[..self.kept].iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            out.extend_from_slice(cell);
        }
        out.extend_from_slice(self.surplus);
        out.extend_from_slice(self.ending);
    }
}
