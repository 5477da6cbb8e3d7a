//! gRPC's framing, followed through a body without holding any of it (pure).

/// A frame begins with a flag byte and the length of its message.
const HEADER_BYTES: usize = 5;

/// Knows where in the framing a body is.
#[derive(Debug, Default)]
pub(super) struct FrameScanner {
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    message_left: usize,
}

impl FrameScanner {
    /// Takes the next bytes of the body and calls `begin` with the length of each message that begins
    /// in them; the first error ends the scan.
    pub(super) fn scan<E>(&mut self, mut data: &[u8], mut begin: impl FnMut(usize) -> Result<(), E>) -> Result<(), E> {
        while !data.is_empty() {
            if self.message_left > 0 {
                let taken = self.message_left.min(data.len());
                self.message_left -= taken;
                data = &data[taken..];
                continue;
            }
            let taken = (HEADER_BYTES - self.header_filled).min(data.len());
            self.header[self.header_filled..self.header_filled + taken].copy_from_slice(&data[..taken]);
            self.header_filled += taken;
            data = &data[taken..];
            if self.header_filled == HEADER_BYTES {
                let [_, length @ ..] = self.header;
                let length = u32::from_be_bytes(length) as usize;
                self.header_filled = 0;
                self.message_left = length;
                begin(length)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
        bytes.resize(HEADER_BYTES + length, 0xff);
        bytes
    }

    #[test]
    fn every_message_is_found_however_the_body_is_cut() {
        let lengths = [0, 1, 300, 5, 0, 0, 70_000];
        let body: Vec<u8> = lengths.into_iter().flat_map(frame).collect();
        for cut in [1, 2, 3, 4, 5, 6, 7, 64, 1000, body.len()] {
            let mut scanner = FrameScanner::default();
            let mut found = Vec::new();
            for chunk in body.chunks(cut) {
                let scanned: Result<(), Infallible> = scanner.scan(chunk, |length| {
                    found.push(length);
                    Ok(())
                });
                assert_eq!(scanned, Ok(()));
            }
            assert_eq!(found, lengths, "cut into {cut} bytes");
        }
    }

    #[test]
    fn an_error_is_returned_before_the_message_is_there() {
        let mut scanner = FrameScanner::default();
        let refuse = |length| if length > 10 { Err(length) } else { Ok(()) };
        assert_eq!(scanner.scan(&frame(10), refuse), Ok(()));
        assert_eq!(scanner.scan(&frame(11)[..HEADER_BYTES], refuse), Err(11));
    }
}
