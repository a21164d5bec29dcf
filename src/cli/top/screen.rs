//! The terminal, which is restored however the program ends.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{self, Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{cursor, execute, queue};
use tokio::signal::unix::{SignalKind, signal};

/// Columns and rows.
const SIZE_DEFAULT: (u16, u16) = (80, 24);

/// The user's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserWish {
    None,
    /// The size of the terminal changed.
    Redraw,
    Quit,
}

/// The terminal while frames are shown. Dropping it restores the terminal, also during a panic.
pub struct Screen {
    ended: Arc<AtomicBool>,
}

impl Screen {
    pub fn enter() -> io::Result<Screen> {
        let ended = end_by_signals()?;
        terminal::enable_raw_mode()?;
        // From here on a failure drops the value, which restores the terminal.
        let screen = Screen { ended };
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Shows as much of the text as fits.
    pub fn show(&mut self, text: &str) -> io::Result<()> {
        let (columns, rows) = match terminal::size()? {
            // The terminal does not report its size.
            (0, _) | (_, 0) => SIZE_DEFAULT,
            size => size,
        };
        let mut out = io::stdout().lock();
        queue!(out, cursor::MoveTo(0, 0))?;
        let lines = text.lines().chain(["", "q: quit"]);
        for (row, line) in (0..rows).zip(lines) {
            let line: String = line.chars().take(columns.into()).collect();
            queue!(
                out,
                cursor::MoveTo(0, row),
                Print(line),
                Clear(ClearType::UntilNewLine)
            )?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }

    pub fn wait_for_key(&self, wait: Duration) -> io::Result<UserWish> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(UserWish::Quit);
        }
        if !event::poll(wait)? {
            return Ok(UserWish::None);
        }
        Ok(wish(&event::read()?))
    }
}

fn wish(event: &Event) -> UserWish {
    match event {
        Event::Resize(..) => UserWish::Redraw,
        Event::Key(key) if key.kind == KeyEventKind::Press => {
            let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
            match key.code {
                KeyCode::Char('c') if with_control => UserWish::Quit,
                KeyCode::Char('q' | 'Q') | KeyCode::Esc => UserWish::Quit,
                _ => UserWish::None,
            }
        }
        _ => UserWish::None,
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be closed.
        let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
        let _ = terminal::disable_raw_mode();
    }
}

/// Converts signals that would end the process at once into an orderly end.
fn end_by_signals() -> io::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    let entered = runtime.enter();
    let signals = kinds
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<_>>>()?;
    drop(entered);
    let ended_there = Arc::clone(&ended);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let tasks = signals.into_iter().map(|mut signal| {
                let ended = Arc::clone(&ended_there);
                tokio::spawn(async move {
                    while signal.recv().await.is_some() {
                        ended.store(true, Ordering::Relaxed);
                    }
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                let _ = task.await;
            }
        });
    });
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::KeyEvent;

    #[test]
    fn q_and_control_c_quit() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        for (event, expected) in [
            (key(KeyCode::Char('q'), none), UserWish::Quit),
            (key(KeyCode::Char('c'), control), UserWish::Quit),
            (key(KeyCode::Esc, none), UserWish::Quit),
            (key(KeyCode::Char('c'), none), UserWish::None),
            (key(KeyCode::Char('z'), control), UserWish::None),
            (Event::Resize(80, 24), UserWish::Redraw),
            (Event::FocusLost, UserWish::None),
        ] {
            assert_eq!(wish(&event), expected, "{event:?}");
        }
    }
}
