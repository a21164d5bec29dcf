//! `horseshoe top`: a live view of all nodes in the terminal.

mod frame;
mod sample;
mod screen;

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use clap::Args;

use super::connection::ConnectionArgs;
use super::exit::Exit;
use super::{report, words};
use sample::{ClusterSample, Sampler};
use screen::{Screen, UserWish};

/// The longest time between two checks of the keyboard.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Show live what each node does: operations per second, latencies, links, votes, lag. Quit with q
/// or Ctrl-C.
///
/// Operations and latencies come from the metrics of nodes that were started with `serve --http`;
/// all else from the same answers as `status`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Print one frame as text, after one interval, and end: for scripts
    #[arg(long)]
    once: bool,

    /// How often the nodes are asked
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = words::duration)]
    interval: Duration,

    /// The TCP port of the nodes' metrics [default: the number of each node's own port]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    http_port: Option<u16>,
}

pub fn run(arguments: &TopArgs, connection: &ConnectionArgs) -> Exit {
    if !arguments.once && !std::io::stdout().is_terminal() {
        let message = "top needs a terminal; for one frame as text, give --once";
        return connection.refuse("no_terminal", Exit::Usage, message);
    }
    let sampler = Sampler::new(connection.clone(), arguments.http_port);
    let first = match sampler.sample() {
        Ok(sample) => sample,
        Err(exit) => return exit,
    };
    match arguments.once {
        true => once(arguments, &sampler, &first),
        false => live(arguments.interval, sampler, first),
    }
}

fn once(arguments: &TopArgs, sampler: &Sampler, first: &ClusterSample) -> Exit {
    std::thread::sleep(arguments.interval);
    let second = match sampler.sample() {
        Ok(sample) => sample,
        Err(exit) => return exit,
    };
    let text = frame::in_words(Some(first), &second);
    match report::print_bytes(text.as_bytes()) {
        Err(exit) => exit,
        Ok(()) if second.has_quorum() => Exit::Done,
        Ok(()) => Exit::NoQuorum,
    }
}

fn live(interval: Duration, sampler: Sampler, first: ClusterSample) -> Exit {
    let samples = keep_sampling(interval, sampler);
    let shown = Screen::enter().and_then(|mut screen| {
        let (mut before, mut now) = (None, first);
        let mut is_new = true;
        loop {
            if is_new {
                screen.show(&frame::in_words(before.as_ref(), &now))?;
            }
            is_new = match screen.wait_for_key(KEY_WAIT)? {
                UserWish::Quit => return Ok(()),
                UserWish::Redraw => true,
                UserWish::None => false,
            };
            if let Ok(sample) = samples.try_recv() {
                before = Some(std::mem::replace(&mut now, sample));
                is_new = true;
            }
        }
    });
    match shown {
        Ok(()) => Exit::Done,
        Err(error) => {
            report::complain(&format!("horseshoe: the terminal can't be used: {error}\n"));
            Exit::Other
        }
    }
}

/// Asks the nodes in a separate thread: with a node that is down the answers take a second, and
/// keys must not wait for that.
fn keep_sampling(interval: Duration, sampler: Sampler) -> Receiver<ClusterSample> {
    let (sender, samples) = sync_channel(1);
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(interval);
            // The first sample would have failed with the same lasting error, so the next one may
            // succeed.
            if let Ok(sample) = sampler.sample()
                && sender.send(sample).is_err()
            {
                return;
            }
        }
    });
    samples
}
