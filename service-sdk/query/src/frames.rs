//! Frames out of a stream of bytes: a length of four bytes, then the body.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};
use watchdog_protocol::limits::MAX_FRAME;

/// Room asked for at a time: a call or reply in most cases, and never more than twice what has come.
const STEP: usize = 8 * 1024;

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// The stream failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// It announced more than any frame has; nothing of it was read.
    #[error("a frame of {length} bytes, at most {MAX_FRAME} are read")]
    Long {
        /// As announced.
        length: usize,
    },
    /// The stream ended inside a frame.
    #[error("the connection ended inside a frame")]
    Cut,
}

/// Reads frames. Memory grows with the bytes that came, not with the length that was announced.
#[derive(Debug)]
pub struct Frames<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Frames<S> {
    /// Nothing is read before [`next`](Self::next).
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// For writing.
    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The body of the next frame; `None` when the stream ended between two. Cancel safe: half a frame is kept.
    ///
    /// # Errors
    /// [`FramesError`]; the stream is of no use after it.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, FramesError> {
        loop {
            if let Some(body) = self.take()? {
                return Ok(Some(body));
            }
            self.buffer.reserve(STEP);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FramesError::Cut) };
            }
        }
    }

    fn take(&mut self) -> Result<Option<Vec<u8>>, FramesError> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > MAX_FRAME {
            return Err(FramesError::Long { length });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let next = self.buffer.split_off(4 + length);
        let mut body = std::mem::replace(&mut self.buffer, next);
        body.drain(..4);
        Ok(Some(body))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let bytes = [&[3, 0, 0, 0][..], b"abc", &[0, 0, 0, 0], &[1, 0, 0, 0], b"d"].concat();
        let (mut near, far) = tokio::io::duplex(64);
        let mut frames = Frames::new(far);
        let write = async {
            for byte in bytes {
                near.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(near);
        };
        let read = async {
            let mut bodies = Vec::new();
            while let Some(body) = frames.next().await.unwrap() {
                bodies.push(body);
            }
            bodies
        };
        let ((), bodies) = tokio::join!(write, read);
        assert_eq!(bodies, [b"abc".to_vec(), vec![], b"d".to_vec()]);
    }

    #[tokio::test]
    async fn an_announced_length_takes_no_memory() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut frames = Frames::new(far);
        near.write_all(&u32::to_le_bytes(MAX_FRAME as u32)).await.unwrap();
        near.write_all(b"little").await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_millis(1), frames.next()).await;
        assert!(waiting.is_err());
        assert!(frames.buffer.capacity() <= 2 * STEP, "{}", frames.buffer.capacity());

        near.write_all(&[0; 32]).await.unwrap();
        drop(near);
        assert!(matches!(frames.next().await, Err(FramesError::Cut)));
    }

    #[tokio::test]
    async fn a_length_above_the_bound_is_an_error_before_its_body() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
        let error = Frames::new(far).next().await.unwrap_err();
        assert!(matches!(error, FramesError::Long { length } if length == u32::MAX as usize));
    }

    #[tokio::test]
    async fn half_a_frame_survives_a_cancelled_read() {
        let (mut near, far) = tokio::io::duplex(64);
        let mut frames = Frames::new(far);
        near.write_all(&[2, 0, 0, 0, b'a']).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1), frames.next()).await.is_err());
        near.write_all(b"b").await.unwrap();
        assert_eq!(frames.next().await.unwrap().unwrap(), b"ab");
    }
}
