//! How a stream and its fields are written in PostgreSQL's binary COPY format (PostgreSQL manual, COPY,
//! "Binary Format").
//!
//! Knows no table and no row: the tuples of each table are in [`crate::batch::frame`].

/// Signature, flags and the length of the (empty) header extension.
pub const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A tuple with -1 fields ends the stream.
pub const TRAILER: [u8; 2] = [0xff, 0xff];

/// Begins a tuple of so many fields.
pub fn put_field_count(out: &mut Vec<u8>, count: u16) {
    out.extend_from_slice(&count.to_be_bytes());
}

/// Appends a field: its length, big endian, and its bytes.
pub fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
    out.extend_from_slice(value);
}

#[inline(always)]
pub fn put_null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1i32).to_be_bytes());
}

pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_bytes(out, &value.to_be_bytes());
}

pub fn put_i32(out: &mut Vec<u8>, value: i32) {
    put_bytes(out, &value.to_be_bytes());
}

/// Values up to so many bytes are copied as one block of this size.
const SHORT: usize = 32;

/// [`put_bytes`] for a value that most likely lies in `around`: a short one is then copied without a loop.
#[inline(always)]
pub(crate) fn put_bytes_within(payload: &mut Vec<u8>, value: &[u8], around: &[u8]) {
    let length = value.len();
    payload.reserve(4 + length + SHORT);
    let prefix = (length as u32).to_be_bytes();
    // If the value lies before `around`, this wraps to a huge number.
    let at = (value.as_ptr() as usize).wrapping_sub(around.as_ptr() as usize);
    if length <= SHORT && at < around.len() && around.len() - at >= SHORT {
        // SAFETY: the payload has room for 4 + SHORT bytes behind its end, and is made longer only
        // by the bytes that were written. The SHORT bytes from `at` are inside `around`, and its
        // byte `at` has the address of the value's first one, so they begin with the value. A
        // payload that can be written to overlaps neither.
        unsafe {
            let end = payload.as_mut_ptr().add(payload.len());
            end.cast::<[u8; 4]>().write_unaligned(prefix);
            let block = around
                .as_ptr()
                .add(at)
                .cast::<[u8; SHORT]>()
                .read_unaligned();
            end.add(4).cast::<[u8; SHORT]>().write_unaligned(block);
            payload.set_len(payload.len() + 4 + length);
        }
    } else {
        payload.extend_from_slice(&prefix);
        payload.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_copied_whole_wherever_they_lie() {
        let around: Vec<u8> = (0..100).collect();
        for start in 0..=100 {
            for end in start..=100 {
                let elsewhere = around[start..end].to_vec();
                for value in [&around[start..end], &elsewhere] {
                    let mut payload = b"before".to_vec();
                    put_bytes_within(&mut payload, value, &around);
                    let length = (value.len() as u32).to_be_bytes();
                    assert_eq!(payload, [b"before", &length[..], value].concat());
                }
            }
        }
    }
}
