//! `horseshoe serve`: runs one node.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::FalseyValueParser;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::{report, words};
use crate::config::{LOG_DEFAULT, ServerConfig, Settings, TextMode};
use crate::protocol::types::limits::{HEARTBEAT_MS_DEFAULT, LINK_DOWN_MS_DEFAULT};
use crate::runtime::{self, Log, memory};
use crate::storage::Durability;

/// Run one node.
///
/// Start all nodes with the same list, in the same order. The first one forms the cluster and is
/// its first master, whose vote decides when exactly half of an even number of members agree.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// This node's place in the list, from 0
    index: usize,

    /// All nodes: name:port, 192.0.2.1:port, [2001:db8::1]:port or [fe80::1%eth0]:port
    #[arg(required = true, value_name = "HOST:PORT")]
    nodes: Vec<String>,

    /// The name of the cluster: `status` shows it, and `--cluster` accepts it. It is set when the
    /// cluster is formed and can't be changed. A node whose cluster has another name does not start
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        env = "HORSESHOE_CLUSTER_NAME"
    )]
    cluster_name: String,

    /// The address to listen at, where that is not this node's listed address: a numeric address of
    /// this machine, or 0.0.0.0 or [::] for all of them, with a port (0.0.0.0:8801) if that is not
    /// the listed one. The other nodes still use the listed address. For containers, virtual
    /// addresses and translated addresses (NAT)
    #[arg(long, value_name = "ADDR", env = "HORSESHOE_LISTEN")]
    listen: Option<String>,

    /// Serve metrics, /healthz and /readyz over HTTP at this address: a numeric address of this
    /// machine, or 0.0.0.0 or [::] for all of them, with a port (127.0.0.1:9100) if that is not the
    /// number of the node's listed port. HTTP uses TCP, so both can have the same number [default:
    /// no HTTP]
    #[arg(
        long,
        value_name = "ADDR",
        env = "HORSESHOE_HTTP",
        hide_default_value = true
    )]
    http: Option<String>,

    /// The directory for the node's state; without it the state is in memory only
    #[arg(long, value_name = "DIR", env = "HORSESHOE_DATA_DIR")]
    data_dir: Option<OsString>,

    /// How durable a write is when it is acknowledged
    #[arg(
        long,
        value_enum,
        default_value = "fsync",
        env = "HORSESHOE_DURABILITY"
    )]
    durability: DurabilityArg,

    /// Whether the node accepts Firecloud's text datagrams (GET, PUT) on its port
    #[arg(long, value_enum, default_value = "auto", env = "HORSESHOE_TEXT")]
    text: TextArg,

    /// Accept membership changes (`horseshoe member`) from any machine, not only from the node's
    /// own: anyone who can send to the node can then add, remove and force members
    #[arg(long, env = "HORSESHOE_INSECURE_ADMIN", value_parser = FalseyValueParser::new())]
    insecure_admin: bool,

    /// What is logged: a level, or a filter in the syntax of tracing's env-filter
    #[arg(long, value_name = "FILTER", default_value = LOG_DEFAULT, env = "HORSESHOE_LOG")]
    log: String,

    /// How long a member may be unreachable before it is removed; when it is back it is admitted
    /// again. 500ms to 1h, or 0 for never; the same on all nodes
    #[arg(
        long,
        value_name = "TIME",
        default_value = "3s",
        env = "HORSESHOE_SHRINK_AFTER",
        value_parser = words::duration_or_zero
    )]
    shrink_after: Duration,

    /// On the first listed node: form a new cluster with more than half of the nodes, once no new
    /// node has appeared for 3 s; the others join later. It has no effect on a node that belongs to
    /// a cluster
    #[arg(long)]
    bootstrap: bool,

    /// How often nodes send heartbeats to each other, in milliseconds; the same on all nodes
    #[arg(long, value_name = "MS", default_value_t = HEARTBEAT_MS_DEFAULT, env = "HORSESHOE_HEARTBEAT_MS")]
    heartbeat_ms: u64,

    /// A link counts as down after a silence of this many milliseconds
    #[arg(long, value_name = "MS", default_value_t = LINK_DOWN_MS_DEFAULT, env = "HORSESHOE_LINK_DOWN_MS")]
    link_down_ms: u64,

    /// How long a write to the disk may take: after this time the disk counts as hung, and the node
    /// has no vote until the write finishes; 500ms to 10m; the same on all nodes
    #[arg(
        long,
        value_name = "TIME",
        default_value = "2s",
        env = "HORSESHOE_DISK_HUNG_AFTER",
        value_parser = words::duration
    )]
    disk_hung_after: Duration,

    /// How much space must be free on the disk of the data directory: with less the node is full
    /// and refuses writes that grow; bytes, or with a unit (512M, 2G); 0 for none [default: 1.5
    /// times the size of the store, at least 64M, or a quarter of a smaller disk, at most 1G]
    #[arg(
        long,
        value_name = "SIZE",
        env = "HORSESHOE_DISK_RESERVE",
        value_parser = words::size,
        hide_default_value = true
    )]
    disk_reserve: Option<u64>,

    /// How much memory the node may use before it is full and refuses writes that grow: bytes, or
    /// with a unit (512M, 2G), at least 64M; 0 for no limit [default: 60 % of the least of the
    /// machine's memory, what the node's control group allows, and what `ulimit -v` and `-d` leave,
    /// but at least 64M]
    #[arg(
        long,
        value_name = "SIZE",
        env = "HORSESHOE_MEMORY_MAX",
        value_parser = words::size,
        hide_default_value = true
    )]
    memory_max: Option<u64>,

    /// The largest value that this node accepts from clients: bytes, or with a unit (512K, 4M),
    /// from 2048 to 16M. Give all nodes the same; a node accepts larger values that other nodes
    /// wrote
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "1M",
        env = "HORSESHOE_VALUE_MAX",
        value_parser = words::size
    )]
    value_max: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DurabilityArg {
    /// The write survives a power failure of all nodes
    Fsync,
    /// The write survives the end of the process; the system writes it to disk later
    Os,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TextArg {
    /// On if all listed nodes have loopback addresses and the node listens at one
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

/// Runs until a signal ends the node.
pub fn run(arguments: ServeArgs, unknown: &[String]) -> ExitCode {
    // This comes before the log writes its first line, and before any other thread starts.
    if let Err(error) = runtime::block_file_size_signal() {
        report::complain(&format!("horseshoe: SIGXFSZ can't be blocked: {error}\n"));
        return ExitCode::FAILURE;
    }
    let mut log = match Log::start(std::io::stderr()) {
        Ok(log) => log,
        Err(error) => {
            report::complain(&format!(
                "horseshoe: the thread of the log can't be started: {error}\n"
            ));
            return ExitCode::FAILURE;
        }
    };
    let result = serve(arguments, unknown, &log);
    if let Err(error) = &result {
        // Not a log event, because the filter could hide it. A full log accepts no more lines
        // anyway.
        let _ = log.write_all(format!("horseshoe: {error:#}\n").as_bytes());
    }
    log.close();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(arguments: ServeArgs, unknown: &[String], log: &Log) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)
        .with_context(|| format!("{:?} is not a log filter", arguments.log))?;
    let config = ServerConfig::new(arguments.into())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log.clone())
        .with_ansi(false)
        .with_target(false)
        .init();
    for name in unknown {
        tracing::warn!(
            "{name} is set but is not a setting: `horseshoe serve --help` lists the settings"
        );
    }
    runtime::serve(&config)?;
    Ok(())
}

impl From<ServeArgs> for Settings {
    fn from(arguments: ServeArgs) -> Self {
        // Scripts set the variable to the empty string if there is no data directory.
        let data_dir = arguments.data_dir.filter(|dir| !dir.is_empty());
        Settings {
            index: arguments.index,
            nodes: arguments.nodes,
            cluster_name: arguments.cluster_name,
            // Scripts set this variable to the empty string, too.
            listen: arguments.listen.filter(|listen| !listen.is_empty()),
            http: arguments.http.filter(|http| !http.is_empty()),
            data_dir: data_dir.map(PathBuf::from),
            durability: match arguments.durability {
                DurabilityArg::Fsync => Durability::Fsync,
                DurabilityArg::Os => Durability::Os,
            },
            text: match arguments.text {
                TextArg::Auto => TextMode::Auto,
                TextArg::On => TextMode::On,
                TextArg::Off => TextMode::Off,
            },
            insecure_admin: arguments.insecure_admin,
            shrink_after: arguments.shrink_after,
            bootstrap: arguments.bootstrap,
            heartbeat_ms: arguments.heartbeat_ms,
            link_down_ms: arguments.link_down_ms,
            disk_hung_after: arguments.disk_hung_after,
            disk_reserve: arguments.disk_reserve,
            memory_max: arguments.memory_max,
            memory_share: memory::share(),
            value_max: arguments.value_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn parse(line: &str) -> Result<ServeArgs, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.serve)
    }

    #[test]
    fn defaults_are_memory_and_fsync() {
        let settings: Settings = parse("serve 1 a:1 b:2").unwrap().into();
        assert_eq!((settings.index, settings.nodes.len()), (1, 2));
        assert_eq!(settings.data_dir, None);
        assert_eq!(settings.durability, Durability::Fsync);
        assert_eq!(settings.shrink_after, Duration::from_secs(3));
        assert!(!settings.bootstrap);
        assert_eq!(settings.text, TextMode::Auto);
        assert!(!settings.insecure_admin);
    }

    #[test]
    fn flags_may_stand_anywhere() {
        let line = "serve --data-dir /d 0 --durability os a:1 --shrink-after 0s --log debug b:2";
        let arguments = parse(line).unwrap();
        assert_eq!(arguments.log, "debug");
        let settings: Settings = arguments.into();
        assert_eq!(settings.shrink_after, Duration::ZERO);
        assert_eq!(settings.nodes, ["a:1", "b:2"]);
        assert_eq!(settings.data_dir, Some(PathBuf::from("/d")));
        assert_eq!(settings.durability, Durability::Os);
    }

    #[test]
    fn memory_has_units_and_a_default() {
        let of = |line| Settings::from(parse(line).unwrap()).memory_max;
        assert_eq!(of("serve 0 a:1 --memory-max 2G"), Some(2 << 30));
        assert_eq!(of("serve 0 a:1 --memory-max 0"), Some(0));
        assert_eq!(of("serve 0 a:1"), None);
        assert!(parse("serve 0 a:1 --memory-max some").is_err());
    }

    #[test]
    fn text_and_changes_from_elsewhere_are_as_they_are_set() {
        for (word, mode) in [
            ("auto", TextMode::Auto),
            ("on", TextMode::On),
            ("off", TextMode::Off),
        ] {
            let settings: Settings = parse(&format!("serve 0 a:1 --text {word}")).unwrap().into();
            assert_eq!(settings.text, mode);
        }
        let settings: Settings = parse("serve --insecure-admin 0 a:1").unwrap().into();
        assert!(settings.insecure_admin);
        assert!(parse("serve 0 a:1 --text maybe").is_err());
    }

    #[test]
    fn without_an_address_there_is_no_http() {
        let of = |line| Settings::from(parse(line).unwrap()).http;
        assert_eq!(of("serve 0 a:1"), None);
        assert_eq!(of("serve 0 a:1 --http="), None);
        let given = of("serve 0 a:1 --http 127.0.0.1:9100");
        assert_eq!(given.as_deref(), Some("127.0.0.1:9100"));
    }

    #[test]
    fn an_empty_data_directory_is_none() {
        let arguments = parse("serve --data-dir= 0 a:1").unwrap();
        assert_eq!(Settings::from(arguments).data_dir, None);
    }

    #[test]
    fn what_is_missing_or_unknown_is_an_error() {
        assert!(parse("serve").is_err());
        assert!(parse("serve 0").is_err());
        assert!(parse("serve x a:1").is_err());
        assert!(parse("serve 0 a:1 --durability none").is_err());
        assert!(parse("serve 0 a:1 --shrink-after soon").is_err());
    }
}
