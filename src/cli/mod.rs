//! The command line: one file per subcommand. The client commands use the client library like any
//! application.

mod add;
mod append;
mod bench;
mod cas;
mod clocks;
mod connection;
mod data;
mod del;
mod environment;
mod exit;
mod expire;
mod export;
mod get;
mod import;
mod links;
mod lock;
mod member;
mod put;
mod report;
mod run;
mod scan;
mod serve;
mod status;
mod top;
mod ttl;
mod txn;
mod watch;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use connection::ConnectionArgs;

/// A replicated key-value store that keeps serving when the network is half broken.
#[derive(Debug, Parser)]
#[command(name = "horseshoe", version, after_help = AFTER_HELP)]
struct Arguments {
    #[command(flatten)]
    connection: ConnectionArgs,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit status of all but serve: 0 done, 1 no such key, 2 usage, 3 no quorum (a write was surely not \
done), 4 conflict, 5 unknown outcome (a write may have been done), 6 another error, 7 bench --check: \
not linearizable, 8 lock: the lock was lost.

Keys, values and numbers may begin with a hyphen. A word that is an option is parsed as \
the option, unless it follows `--`.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Get(get::GetArgs),
    Put(put::PutArgs),
    Del(del::DelArgs),
    Cas(cas::CasArgs),
    Add(add::AddArgs),
    Append(append::AppendArgs),
    Expire(expire::ExpireArgs),
    Persist(expire::PersistArgs),
    Ttl(ttl::TtlArgs),
    Lock(lock::LockArgs),
    Scan(scan::ScanArgs),
    Watch(watch::WatchArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Status(status::StatusArgs),
    Top(top::TopArgs),
    Member(member::MemberArgs),
    Data(data::DataArgs),
    Run(run::RunArgs),
    Txn(txn::TxnArgs),
    Bench(bench::BenchArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let mut definition = environment::without_empty(Arguments::command());
    let matches = definition.get_matches_mut();
    let parsed = Arguments::from_arg_matches(&matches).map_err(|e| e.format(&mut definition));
    let Arguments {
        connection,
        command,
    } = parsed.unwrap_or_else(|error| error.exit());
    let exit = match command {
        Command::Serve(arguments) => {
            return serve::run(arguments, &environment::unknown(&definition));
        }
        Command::Get(arguments) => get::run(arguments, &connection),
        Command::Put(arguments) => put::run(arguments, &connection),
        Command::Del(arguments) => del::run(arguments, &connection),
        Command::Cas(arguments) => cas::run(arguments, &connection),
        Command::Add(arguments) => add::run(arguments, &connection),
        Command::Append(arguments) => append::run(arguments, &connection),
        Command::Expire(arguments) => expire::run(arguments, &connection),
        Command::Persist(arguments) => expire::run_persist(arguments, &connection),
        Command::Lock(arguments) => return lock::run(arguments, &connection),
        Command::Ttl(arguments) => ttl::run(arguments, &connection),
        Command::Scan(arguments) => scan::run(&arguments, &connection),
        Command::Watch(arguments) => watch::run(&arguments, &connection),
        Command::Export(arguments) => export::run(arguments, &connection),
        Command::Import(arguments) => import::run(&arguments, &connection),
        Command::Status(arguments) => status::run(arguments, &connection),
        Command::Top(arguments) => top::run(&arguments, &connection),
        Command::Member(arguments) => member::run(arguments, &connection),
        Command::Data(arguments) => data::run(arguments, &connection),
        Command::Run(arguments) => run::run(&arguments, &connection),
        Command::Txn(arguments) => txn::run(&arguments, &connection),
        Command::Bench(arguments) => bench::run(&arguments, &connection),
    };
    exit.into()
}

#[cfg(test)]
mod tests;
