//! The command line: a file for each subcommand.

mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A replicated key-value store that keeps serving when the network is half broken.
#[derive(Debug, Parser)]
#[command(name = "horseshoe", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments),
    }
}
