//! The log. Lines are written by a separate thread, so that neither a stalled reader nor a full
//! file system blocks or ends the node.
//!
//! Lines that find the queue full, and lines that could not be written, are counted; the count is
//! written as a line of its own as soon as a line can be written again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::protocol::types::backoff::Waits;

/// A condition that continues is logged at once, then after 1 s, 2 s, 4 s, and so on up to 64 s.
pub const WARNING_WAITS: Waits = Waits {
    min_us: 1_000_000,
    max_us: 64_000_000,
};

/// The most lines that wait to be written; further ones are lost.
pub const LINES_WAITING_MAX: usize = 4_096;
/// How often the count of lost lines is retried while nothing else is logged.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last lines.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// How often the end of the process checks whether a full queue has space again.
const CLOSE_RETRY: Duration = Duration::from_millis(5);

enum LogMessage {
    Line(Vec<u8>),
    /// All lines before it were handled; the answer goes to the sender in it.
    Close(SyncSender<()>),
}

/// A handle of the log's thread. Clones share it.
#[derive(Clone)]
pub struct Log {
    queue: SyncSender<LogMessage>,
    lost: Arc<AtomicU64>,
}

impl Log {
    /// Starts the thread that writes to `output`.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<Log> {
        let (queue, lines) = sync_channel(LINES_WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let lost_there = Arc::clone(&lost);
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || write_lines(&lines, &lost_there, output))?;
        Ok(Log { queue, lost })
    }

    /// Waits until the lines so far are written, but not for long: the reader may have stalled.
    pub fn close(&self) {
        self.close_within(CLOSE_MAX);
    }

    fn close_within(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let (answer, answered) = sync_channel(1);
        let mut message = LogMessage::Close(answer);
        // After a burst the queue is full even though its reader keeps reading.
        while let Err(TrySendError::Full(back)) = self.queue.try_send(message) {
            if Instant::now() >= until {
                return;
            }
            message = back;
            std::thread::sleep(CLOSE_RETRY);
        }
        // The process ends whether they were written or not.
        let _ = answered.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

impl Write for Log {
    /// One call is one line. It never fails: a line that cannot be written is counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self
            .queue
            .try_send(LogMessage::Line(line.to_vec()))
            .is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        self.clone()
    }
}

fn write_lines(lines: &Receiver<LogMessage>, lost: &AtomicU64, mut output: impl Write) {
    loop {
        let message = match lines.recv_timeout(RETRY_INTERVAL) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let is_writable = write_lost(lost, &mut output);
        match message {
            Some(LogMessage::Line(line)) => {
                let is_written = is_writable && output.write_all(&line).is_ok();
                lost.fetch_add(u64::from(!is_written), Ordering::Relaxed);
            }
            Some(LogMessage::Close(answer)) => {
                let _ = output.flush();
                // If this took too long, the caller does not wait for the answer any more.
                let _ = answer.try_send(());
            }
            None => {}
        }
    }
}

/// Writes how many lines were lost, if any were. False if that cannot be written either.
fn write_lost(lost: &AtomicU64, output: &mut impl Write) -> bool {
    let count = lost.load(Ordering::Relaxed);
    if count == 0 {
        return true;
    }
    let mut line = String::new();
    // Neither can fail: a string accepts every write, and the clock can be read.
    let _ = SystemTime.format_time(&mut Writer::new(&mut line));
    line.push_str(&format!(
        "  WARN {count} log lines were lost: the log could not be written, or its reader was too slow\n"
    ));
    if output.write_all(line.as_bytes()).is_err() {
        return false;
    }
    lost.fetch_sub(count, Ordering::Relaxed);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    /// A timeout for events that are certain, on a machine that also runs other programs.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// An output that fails, blocks or works, as the test decides.
    #[derive(Clone, Default)]
    struct Output {
        written: Arc<Mutex<String>>,
        is_full: Arc<Mutex<bool>>,
        /// Locked by the test while the reader blocks.
        gate: Arc<Mutex<()>>,
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _open = self.gate.lock().unwrap();
            if *self.is_full.lock().unwrap() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let text = std::str::from_utf8(bytes).unwrap();
            self.written.lock().unwrap().push_str(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Output {
        fn text(&self) -> String {
            self.written.lock().unwrap().clone()
        }
    }

    #[test]
    fn lines_that_fail_are_counted_and_the_count_is_written_once_that_works() {
        let output = Output::default();
        let mut log = Log::start(output.clone()).unwrap();
        log.write_all(b"first\n").unwrap();
        log.close_within(PATIENCE);
        *output.is_full.lock().unwrap() = true;
        log.write_all(b"second\n").unwrap();
        log.write_all(b"third\n").unwrap();
        log.close_within(PATIENCE);
        assert_eq!(output.text(), "first\n");
        *output.is_full.lock().unwrap() = false;
        log.write_all(b"fourth\n").unwrap();
        log.close_within(PATIENCE);
        let text = output.text();
        assert!(text.contains(" 2 log lines were lost"), "{text}");
        assert!(
            text.ends_with("fourth\n") && !text.contains("second"),
            "{text}"
        );
    }

    #[test]
    fn a_reader_that_stands_still_blocks_nobody() {
        let output = Output::default();
        let gate = output.gate.lock().unwrap();
        let log = Log::start(output.clone()).unwrap();
        let (done, is_done) = channel();
        let mut writer = log.clone();
        std::thread::spawn(move || {
            for _ in 0..2 * LINES_WAITING_MAX {
                writer.write_all(b"line\n").unwrap();
            }
            done.send(()).unwrap();
        });
        let written = is_done.recv_timeout(PATIENCE);
        assert_eq!(written, Ok(()), "writing to the log waits for its reader");
        drop(gate);
        log.close_within(PATIENCE);
        let text = output.text();
        assert!(text.contains("log lines were lost"), "{}", text.len());
        assert!(text.matches("line\n").count() >= LINES_WAITING_MAX);
    }
}
