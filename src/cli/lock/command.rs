//! The command that `horseshoe lock` runs, and the signals that concern it.
//!
//! All threads block SIGINT, SIGTERM and SIGHUP from the start, and one thread waits for them. So
//! at no moment does a signal end this process while a lock is to be given back: what a signal does
//! depends on the stage alone.

use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawnp};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;
use rustix::process::{WaitOptions, waitpid};

/// What a shell reports of a program that a signal ended, with the signal's number.
pub const EXIT_SIGNAL: i32 = 128;
/// A command whose lock is lost is killed if it has not ended this long after SIGTERM.
const TERMINATION_WAIT: Duration = Duration::from_secs(2);
/// How long a signal lets the attempt end that is in progress, so that it leaves no lock behind.
const ATTEMPT_WAIT: Duration = Duration::from_millis(500);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(10);

/// How far the program has come.
#[derive(Debug)]
enum LockStage {
    /// The lock is not held: a signal ends the program, ...
    Waiting,
    /// ... once the attempt has ended that may be in progress.
    Ending(Signal),
    /// The lock is held, and the command is being started: signals are kept for it.
    Starting(Vec<Signal>),
    Running(Pid),
    /// The command has ended, or is being terminated. Its id may belong to another process.
    Over,
}

impl LockStage {
    fn take(&mut self, signal: Signal) {
        match self {
            LockStage::Waiting => *self = LockStage::Ending(signal),
            LockStage::Ending(_) => std::process::exit(EXIT_SIGNAL + signal as i32),
            LockStage::Starting(kept) => kept.push(signal),
            // A terminal sends it to the command, too.
            LockStage::Running(_) if signal == Signal::SIGINT => {}
            LockStage::Running(id) => drop(kill(*id, signal)),
            LockStage::Over => {}
        }
    }
}

/// Ends the program if the lock is still not held.
fn end_if_waiting(stage: &SharedStage) {
    thread::sleep(ATTEMPT_WAIT);
    if let LockStage::Ending(signal) = *lock(stage) {
        std::process::exit(EXIT_SIGNAL + signal as i32);
    }
}

type SharedStage = Arc<Mutex<LockStage>>;

fn lock(stage: &SharedStage) -> MutexGuard<'_, LockStage> {
    stage
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Signals that would end this process, which has to give the lock back first.
#[derive(Debug)]
pub struct Signals {
    stage: SharedStage,
    /// What was blocked before; `None`: blocking failed, and signals do what they do by default.
    mask: Option<SigSet>,
}

impl Signals {
    /// To be called before any other thread is started: these must not receive the signals.
    pub fn watch() -> Signals {
        let stage = Arc::new(Mutex::new(LockStage::Waiting));
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        let mask = signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok();
        if mask.is_some() {
            let stage = stage.clone();
            thread::spawn(move || {
                while let Ok(signal) = signals.wait() {
                    lock(&stage).take(signal);
                    let is_ending = matches!(*lock(&stage), LockStage::Ending(_));
                    if is_ending {
                        let stage = stage.clone();
                        thread::spawn(move || end_if_waiting(&stage));
                    }
                }
            });
        }
        Signals { stage, mask }
    }

    /// The lock is held. Returns the signal that came while it was not: then the program gives the
    /// lock back and ends.
    pub fn keep(&self) -> Option<Signal> {
        let mut stage = lock(&self.stage);
        if let LockStage::Ending(signal) = *stage {
            *stage = LockStage::Over;
            return Some(signal);
        }
        *stage = LockStage::Starting(Vec::new());
        None
    }

    /// Starts the command with one more variable, and passes on the signals that came meanwhile,
    /// also those that a terminal may have sent before the command was there.
    pub fn start(&self, words: &[OsString], variable: (&str, &str)) -> io::Result<LockedCommand> {
        let id = spawn(words, variable, self.mask.as_ref())?;
        let stage = &mut *lock(&self.stage);
        if let LockStage::Starting(kept) = stage {
            for signal in kept {
                let _ = kill(id, *signal);
            }
        }
        *stage = LockStage::Running(id);
        Ok(LockedCommand {
            id,
            stage: self.stage.clone(),
        })
    }
}

/// A command inherits which signals are blocked and which are ignored. This one gets the mask that
/// this process had, and SIGPIPE, which the Rust runtime ignores.
fn spawn(words: &[OsString], variable: (&str, &str), mask: Option<&SigSet>) -> io::Result<Pid> {
    let words = words.iter().map(|word| CString::new(word.as_bytes()));
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let inherited = std::env::vars_os().filter(|(name, _)| name != variable.0);
    let variables = inherited.chain([(variable.0.into(), variable.1.into())]);
    let variables = variables.map(|(name, value)| {
        let bytes = [name.as_bytes(), b"=", value.as_bytes()].concat();
        CString::new(bytes)
    });
    let variables = variables.collect::<Result<Vec<_>, _>>()?;
    let mut attributes = PosixSpawnAttr::init()?;
    let mut flags = PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF;
    let mut defaults = SigSet::empty();
    defaults.add(Signal::SIGPIPE);
    attributes.set_sigdefault(&defaults)?;
    if let Some(mask) = mask {
        attributes.set_sigmask(mask)?;
        flags |= PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK;
    }
    attributes.set_flags(flags)?;
    let actions = PosixSpawnFileActions::init()?;
    Ok(posix_spawnp(
        &words[0],
        &actions,
        &attributes,
        &words,
        &variables,
    )?)
}

/// The command, as a child of this process.
#[derive(Debug)]
pub struct LockedCommand {
    id: Pid,
    stage: SharedStage,
}

impl LockedCommand {
    /// How it ended, if it has.
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        // Meanwhile no signal is passed on to what may be another process.
        let mut stage = lock(&self.stage);
        let status = self.wait(WaitOptions::NOHANG)?;
        if status.is_some() {
            *stage = LockStage::Over;
        }
        Ok(status)
    }

    pub fn terminate(&self) {
        *lock(&self.stage) = LockStage::Over;
        let _ = kill(self.id, Signal::SIGTERM);
        let end = Instant::now() + TERMINATION_WAIT;
        while Instant::now() < end {
            if !matches!(self.ended(), Ok(None)) {
                return;
            }
            thread::sleep(LOOK);
        }
        let _ = kill(self.id, Signal::SIGKILL);
        let _ = self.wait(WaitOptions::empty());
    }

    fn wait(&self, options: WaitOptions) -> io::Result<Option<ExitStatus>> {
        let id = rustix::process::Pid::from_raw(self.id.as_raw());
        let ended = waitpid(id, options)?;
        Ok(ended.map(|(_, status)| ExitStatus::from_raw(status.as_raw())))
    }
}
