//! Bytes of a pipe -> lines, whatever a program writes.
//!
//! Promises: a carriage return ends a line as a line feed does (progress bars), and makes no
//! empty ones, bytes that are no UTF-8 are shown as `U+FFFD`, and a line
//! without end is cut at [`LONGEST`] so that a runaway stage cannot fill the memory.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest line kept in one piece, in bytes.
const LONGEST: usize = 8 << 20;

/// A pipe read line by line. Cancel-safe: nothing read is lost when a wait is dropped.
pub(crate) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
    after_return: bool,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads from `reader`.
    pub(crate) fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            searched: 0,
            after_return: false,
            ended: false,
        }
    }

    /// Whether everything was read.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Waits for more bytes.
    pub(crate) async fn fill(&mut self) -> std::io::Result<()> {
        if self.reader.read_buf(&mut self.buffer).await? == 0 {
            self.ended = true;
        }
        Ok(())
    }

    /// The next whole line; at the end, what is left.
    pub(crate) fn take(&mut self) -> Option<String> {
        loop {
            let end = self.buffer[self.searched..]
                .iter()
                .position(|byte| matches!(byte, b'\n' | b'\r'))
                .map(|at| at + self.searched);
            let Some(end) = end else {
                self.searched = self.buffer.len();
                let cut = self.ended || self.buffer.len() >= LONGEST;
                return (cut && !self.buffer.is_empty()).then(|| self.rest());
            };
            let feed = self.buffer[end] == b'\n';
            let line: Vec<u8> = self.buffer.drain(..=end).collect();
            self.searched = 0;
            let second_half = feed && self.after_return && line.len() == 1;
            self.after_return = !feed;
            if !second_half && (feed || line.len() > 1) {
                return Some(String::from_utf8_lossy(&line[..line.len() - 1]).into_owned());
            }
        }
    }

    fn rest(&mut self) -> String {
        self.searched = 0;
        let bytes = std::mem::take(&mut self.buffer);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Lines;

    fn split(text: &'static [u8]) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut lines = Lines::new(text);
            let mut all = Vec::new();
            while !lines.ended() {
                lines.fill().await.expect("a slice can be read");
                while let Some(line) = lines.take() {
                    all.push(line);
                }
            }
            all
        })
    }

    #[test]
    fn line_feeds_returns_and_a_rest() {
        assert_eq!(split(b"a\nb\n"), ["a", "b"]);
        assert_eq!(split(b"a\r\nb\r\n\r\n"), ["a", "b"]);
        assert_eq!(split(b"10%\r20%\r30%"), ["10%", "20%", "30%"]);
        assert_eq!(split(b"a\n\nb"), ["a", "", "b"]);
        assert_eq!(split(b""), Vec::<String>::new());
    }

    #[test]
    fn bytes_that_are_no_text_are_shown() {
        assert_eq!(split(b"a\xffb\n"), ["a\u{fffd}b"]);
    }
}
