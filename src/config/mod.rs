//! Settings of a server: read once, checked once, never changed while it runs.
//!
//! Defines the defaults and, with `address`, the forms of an address. It resolves no names.

mod address;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use address::{Host, NodeAddress};
use address::{check_listen, parse_http, parse_listen};

use wire::VALUE_SIZE_MAX;

use crate::protocol::types::limits::MEMBERS_MAX;
use crate::protocol::types::timings::{Timings, TimingsError};
use crate::storage::Durability;

/// The tracing filter unless one is set.
pub const LOG_DEFAULT: &str = "info";

/// What is wrong with the settings, in words for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("the list of nodes is empty: name at least this node, as HOST:PORT")]
    NoNodes,
    #[error("{0} nodes are listed; at most {MEMBERS_MAX} are supported")]
    TooManyNodes(usize),
    #[error("index {index} is not in the list of {count} nodes: it counts from 0 to {last}", last = .count - 1)]
    Index { index: usize, count: usize },
    #[error("{address:?} is not an address that nodes can be reached at: {reason}")]
    Address {
        address: String,
        reason: &'static str,
    },
    #[error("{0} is listed twice")]
    Duplicate(NodeAddress),
    #[error(
        "{ipv4} is IPv4 and {ipv6} is IPv6: a node has one socket, so all listed addresses must be \
         of one family"
    )]
    MixedFamilies {
        ipv4: NodeAddress,
        ipv6: NodeAddress,
    },
    #[error(transparent)]
    Timings(#[from] TimingsError),
    #[error(
        "--bootstrap is only for the first listed node, {first}, which forms the cluster; this \
         node is {own}"
    )]
    Bootstrap {
        first: NodeAddress,
        own: NodeAddress,
    },
    #[error(
        "{0:?} is not a name for a cluster: 1 to 64 letters, digits, `-`, `_` or `.`, and not 16 hexadecimal \
         digits, as ids have"
    )]
    ClusterName(String),
    #[error(
        "{0:?} is not a listen address: give a numeric address, 0.0.0.0 or [::] for all, with a \
         port (0.0.0.0:8801) if it is not the listed one"
    )]
    Listen(String),
    #[error(
        "{0:?} is not an address for HTTP: give a numeric address of this machine, with a port \
         (127.0.0.1:9100, [::1]:9100) if it is not the node's listed one; port 0, which would be a \
         different port after each start, is not possible"
    )]
    Http(String),
    #[error("{listen} and the listed address {listed} are not both IPv4 or both IPv6")]
    ListenFamily {
        listen: SocketAddr,
        listed: NodeAddress,
    },
    #[error("{0} bytes of memory are too few for a node: at least 64 MiB, or 0 for no limit")]
    MemoryMax(u64),
    #[error("values of up to {0} bytes cannot be served: a limit is from 2,048 bytes to 16 MiB")]
    ValueMax(u64),
}

/// The settings as they were given.
#[derive(Debug, Clone)]
pub struct Settings {
    pub index: usize,
    pub nodes: Vec<String>,
    pub listen: Option<String>,
    pub http: Option<String>,
    /// Empty: none is given.
    pub cluster_name: String,
    pub data_dir: Option<PathBuf>,
    pub durability: Durability,
    pub text: TextMode,
    pub insecure_admin: bool,
    pub shrink_after: Duration,
    pub bootstrap: bool,
    pub heartbeat_ms: u64,
    pub link_down_ms: u64,
    pub disk_hung_after: Duration,
    /// In bytes; 0: none; `None`: derived from the size of the store.
    pub disk_reserve: Option<u64>,
    /// In bytes; 0: no bound; `None`: `memory_share`.
    pub memory_max: Option<u64>,
    /// In bytes.
    pub memory_share: u64,
    /// In bytes.
    pub value_max: u64,
}

/// The settings of a server, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// The nodes in priority order, the same on every node.
    pub nodes: Vec<NodeAddress>,
    /// This node's index in the list, from 0.
    pub index: u8,
    /// Where the node's socket is bound, if not at its listed address.
    pub listen: Option<SocketAddr>,
    /// Where metrics are served over HTTP, by TCP; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// The name of the cluster; empty: none was given.
    pub cluster_name: String,
    /// `None`: the state is in memory only, and a restarted node has lost it.
    pub data_dir: Option<PathBuf>,
    /// Has no effect without a data directory.
    pub durability: Durability,
    /// A member that is unreachable for this long is removed; 0: none ever is.
    pub shrink_after_ms: u64,
    /// Whether the first listed node forms a cluster with more than half of the list.
    pub bootstrap: bool,
    /// How often nodes send each other the state of their links.
    pub heartbeat_ms: u64,
    /// A link is down after a silence of this length, and up again once it was received from for as
    /// long.
    pub link_down_ms: u64,
    /// A disk that has not finished a write for this long counts as hung.
    pub disk_hung_ms: u64,
    /// The node is full when less is free on its disk; 0: never; `None`: derived from the size of
    /// the store.
    pub disk_reserve: Option<u64>,
    pub text: TextMode,
    /// Whether membership changes are accepted from other machines.
    pub insecure_admin: bool,
    /// The node is full once it has this many bytes in use.
    pub memory_max: u64,
    /// The default share of memory, where it was below the minimum.
    pub memory_short: Option<u64>,
    /// The largest value that this node writes, in bytes.
    pub value_size_max: usize,
}

/// Whether Firecloud's text datagrams are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextMode {
    /// If all listed nodes are at loopback addresses: text names no cluster and has no session, so
    /// it is accepted from other machines only where that was requested.
    Auto,
    On,
    Off,
}

/// What clients of the text protocol may write.
pub const VALUE_MAX_MIN: u64 = 2_048;

/// Less does not hold what a node needs to run.
pub const MEMORY_MAX_MIN: u64 = 64 << 20;

impl ServerConfig {
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let nodes = settings
            .nodes
            .iter()
            .map(|node| node.parse())
            .collect::<Result<Vec<NodeAddress>, _>>()?;
        check_nodes(&nodes)?;
        if settings.index >= nodes.len() {
            return Err(ConfigError::Index {
                index: settings.index,
                count: nodes.len(),
            });
        }
        if settings.bootstrap && settings.index != 0 {
            return Err(ConfigError::Bootstrap {
                first: nodes[0].clone(),
                own: nodes[settings.index].clone(),
            });
        }
        let name = settings.cluster_name;
        if !name.is_empty() && !wire::is_cluster_name(&name) {
            return Err(ConfigError::ClusterName(name));
        }
        let listen = settings.listen.as_deref();
        let port = nodes[settings.index].port;
        let listen = listen.map(|text| parse_listen(text, port)).transpose()?;
        check_listen(listen, &nodes)?;
        let http = settings.http.as_deref();
        let http = http.map(|text| parse_http(text, port)).transpose()?;
        let shrink_after_ms = settings.shrink_after.as_micros().div_ceil(1_000);
        let timings = Timings::new(
            settings.heartbeat_ms,
            settings.link_down_ms,
            u64::try_from(shrink_after_ms).unwrap_or(u64::MAX),
        );
        let disk_hung_ms = settings.disk_hung_after.as_millis();
        let timings = timings.with_disk_hung(u64::try_from(disk_hung_ms).unwrap_or(u64::MAX));
        timings.check()?;
        let memory_max = match settings.memory_max {
            None => settings.memory_share.max(MEMORY_MAX_MIN),
            Some(0) => u64::MAX,
            Some(few) if few < MEMORY_MAX_MIN => return Err(ConfigError::MemoryMax(few)),
            Some(bytes) => bytes,
        };
        let value_size_max = usize::try_from(settings.value_max).unwrap_or(usize::MAX);
        if settings.value_max < VALUE_MAX_MIN || value_size_max > VALUE_SIZE_MAX {
            return Err(ConfigError::ValueMax(settings.value_max));
        }
        let is_default = settings.memory_max.is_none();
        let short = Some(settings.memory_share).filter(|share| is_default && *share < memory_max);
        Ok(ServerConfig {
            memory_max,
            memory_short: short,
            value_size_max,
            nodes,
            listen,
            http,
            cluster_name: name,
            index: u8::try_from(settings.index).expect("an index below the bound of members"),
            data_dir: settings.data_dir,
            durability: settings.durability,
            shrink_after_ms: timings.shrink_after_ms,
            bootstrap: settings.bootstrap,
            heartbeat_ms: timings.heartbeat_ms,
            link_down_ms: timings.link_down_ms,
            disk_hung_ms: timings.disk_hung_ms,
            disk_reserve: settings.disk_reserve,
            text: settings.text,
            insecure_admin: settings.insecure_admin,
        })
    }

    /// This node's own address.
    pub fn own(&self) -> &NodeAddress {
        &self.nodes[usize::from(self.index)]
    }

    /// `own`: the address that the node is bound to.
    pub fn takes_text(&self, own: IpAddr) -> bool {
        match self.text {
            TextMode::On => true,
            TextMode::Off => false,
            TextMode::Auto => own.is_loopback() && self.nodes.iter().all(NodeAddress::is_loopback),
        }
    }

    /// The nodes in the one spelling that all nodes agree on.
    pub fn list(&self) -> Vec<String> {
        self.nodes.iter().map(NodeAddress::to_string).collect()
    }

    /// How durable a write is when it is answered, as `status` and the log name it.
    pub fn durability_name(&self) -> &'static str {
        match (&self.data_dir, self.durability) {
            (None, _) => "memory",
            (Some(_), Durability::Fsync) => "fsync",
            (Some(_), Durability::Os) => "os",
        }
    }

    /// The family of the numeric addresses, which is that of the socket.
    pub fn ipv4(&self) -> Option<bool> {
        let listed = self.nodes.iter().find_map(NodeAddress::ipv4);
        listed.or(self.listen.map(|listen| listen.is_ipv4()))
    }

    pub fn votes(&self) -> Votes {
        Votes::of(self.nodes.len())
    }
}

fn check_nodes(nodes: &[NodeAddress]) -> Result<(), ConfigError> {
    if nodes.is_empty() {
        return Err(ConfigError::NoNodes);
    }
    if nodes.len() > MEMBERS_MAX {
        return Err(ConfigError::TooManyNodes(nodes.len()));
    }
    for (at, node) in nodes.iter().enumerate() {
        if nodes[..at].contains(node) {
            return Err(ConfigError::Duplicate(node.clone()));
        }
    }
    let of_kind = |ipv4: bool| {
        let is = |node: &&NodeAddress| node.ipv4() == Some(ipv4);
        nodes.iter().find(is).cloned()
    };
    match (of_kind(true), of_kind(false)) {
        (Some(ipv4), Some(ipv6)) => Err(ConfigError::MixedFamilies { ipv4, ipv6 }),
        _ => Ok(()),
    }
}

/// Q1 as votes: with an even number of nodes the master has two, so that there is no tie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Votes {
    /// The votes that a read or a write needs.
    pub needed: usize,
    pub total: usize,
}

impl Votes {
    pub fn of(nodes: usize) -> Self {
        let total = nodes + usize::from(nodes.is_multiple_of(2));
        Votes {
            needed: total / 2 + 1,
            total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::limits::{HEARTBEAT_MS_DEFAULT, LINK_DOWN_MS_DEFAULT};
    use proptest::prelude::*;

    fn settings(index: usize, nodes: &[&str]) -> Settings {
        Settings {
            index,
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
            listen: None,
            http: None,
            cluster_name: String::new(),
            data_dir: None,
            durability: Durability::Fsync,
            text: TextMode::Auto,
            insecure_admin: false,
            shrink_after: Duration::from_secs(3),
            bootstrap: false,
            heartbeat_ms: HEARTBEAT_MS_DEFAULT,
            link_down_ms: LINK_DOWN_MS_DEFAULT,
            disk_hung_after: Duration::from_secs(2),
            disk_reserve: None,
            memory_max: Some(0),
            memory_share: 1 << 30,
            value_max: 1 << 20,
        }
    }

    #[test]
    fn the_limit_of_values_has_limits() {
        let limit = |value_max| {
            let settings = Settings {
                value_max,
                ..settings(0, &["a:1"])
            };
            ServerConfig::new(settings).map(|config| config.value_size_max)
        };
        for right in [2_048, 1 << 20, 16 << 20] {
            assert_eq!(limit(right), Ok(right as usize));
        }
        for wrong in [0, 2_047, (16 << 20) + 1, u64::MAX] {
            assert!(matches!(limit(wrong), Err(ConfigError::ValueMax(is)) if is == wrong));
        }
    }

    #[test]
    fn what_is_given_of_memory_is_checked_and_the_default_is_no_less_than_is_needed() {
        let told = |memory_max: Option<u64>, memory_share: u64| {
            let settings = Settings {
                memory_max,
                memory_share,
                ..settings(0, &["a:1"])
            };
            ServerConfig::new(settings).map(|config| (config.memory_max, config.memory_short))
        };
        let (large, small) = (1 << 30, 30 << 20);
        assert_eq!(told(None, large), Ok((large, None)));
        assert_eq!(told(None, small), Ok((MEMORY_MAX_MIN, Some(small))));
        assert_eq!(told(None, u64::MAX), Ok((u64::MAX, None)));
        assert_eq!(told(Some(0), small), Ok((u64::MAX, None)));
        assert_eq!(
            told(Some(MEMORY_MAX_MIN), small),
            Ok((MEMORY_MAX_MIN, None))
        );
        let refused = told(Some(small), large).unwrap_err();
        assert!(matches!(refused, ConfigError::MemoryMax(few) if few == small));
    }

    #[test]
    fn a_node_may_listen_elsewhere_than_where_it_is_listed() {
        let listens_at = |listen: &str, nodes: &[&str]| {
            let settings = Settings {
                listen: Some(listen.to_owned()),
                ..settings(0, nodes)
            };
            let config = ServerConfig::new(settings).map_err(|error| error.to_string())?;
            Ok::<_, String>(config.listen.expect("it was given").to_string())
        };
        let ok = |address: &str| Ok(address.to_owned());
        assert_eq!(listens_at("0.0.0.0", &["n1:8801"]), ok("0.0.0.0:8801"));
        assert_eq!(listens_at("0.0.0.0:7", &["n1:8801"]), ok("0.0.0.0:7"));
        assert_eq!(listens_at("[::]:7", &["n1:8801"]), ok("[::]:7"));
        for all in ["::", "[::]"] {
            assert_eq!(listens_at(all, &["[2001:db8::1]:9"]), ok("[::]:9"));
        }
        for wrong in [
            "",
            "n1",
            "n1:8801",
            "0.0.0.0:0",
            "1.2.3",
            "224.0.0.1",
            ":8801",
        ] {
            let error = listens_at(wrong, &["n1:8801"]).unwrap_err();
            assert!(error.contains("0.0.0.0:8801"), "{error}");
        }
        let error = listens_at("::", &["n1:8801", "10.0.0.2:9"]).unwrap_err();
        assert!(error.contains("10.0.0.2:9"), "{error}");
    }

    #[test]
    fn http_has_an_address_in_numbers_and_by_default_the_port_of_the_node() {
        let serves_at = |http: &str| {
            let settings = Settings {
                http: Some(http.to_owned()),
                ..settings(1, &["n0:8801", "n1:8802"])
            };
            let config = ServerConfig::new(settings).map_err(|error| error.to_string())?;
            Ok::<_, String>(config.http.expect("it was given").to_string())
        };
        for (given, address) in [
            ("127.0.0.1", "127.0.0.1:8802"),
            ("0.0.0.0:9100", "0.0.0.0:9100"),
            ("::1", "[::1]:8802"),
            ("[::]", "[::]:8802"),
            ("[2001:db8::1]:9100", "[2001:db8::1]:9100"),
        ] {
            assert_eq!(serves_at(given), Ok(address.to_owned()));
        }
        for wrong in [
            "",
            "9100",
            ":9100",
            "n1",
            "n1:9100",
            "127.0.0.1:0",
            "[::1]:0",
            "1.2.3.4:70000",
            "224.0.0.1",
        ] {
            let error = serves_at(wrong).unwrap_err();
            assert!(
                error.starts_with(&format!("{wrong:?} is not an address for HTTP")),
                "{error}"
            );
            assert!(error.contains("127.0.0.1:9100"), "{error}");
        }
    }

    #[test]
    fn a_cluster_name_is_plain_and_no_id() {
        let named = |name: &str| {
            let settings = Settings {
                cluster_name: name.to_owned(),
                ..settings(0, &["a:1"])
            };
            ServerConfig::new(settings).map(|config| config.cluster_name)
        };
        let long = "x".repeat(65);
        for name in ["", "eu-1.orders_7", "00000000000000f", &long[..64]] {
            assert_eq!(named(name), Ok(name.to_owned()));
        }
        for name in [" ", "a b", "ü", "a\n", "00000000000000ff", &long] {
            assert_eq!(named(name), Err(ConfigError::ClusterName(name.to_owned())));
        }
    }

    fn error(index: usize, nodes: &[&str]) -> String {
        ServerConfig::new(settings(index, nodes))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn names_and_both_kinds_of_numbers_are_addresses() {
        for (given, canonical) in [
            ("Node-1.Example:7000", "node-1.example:7000"),
            ("host.:1", "host:1"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("[2001:DB8:0::1]:7", "[2001:db8::1]:7"),
            ("[FE80:0::1%eth0]:7", "[fe80::1%eth0]:7"),
            ("[fe80::1%2]:7", "[fe80::1%2]:7"),
            ("db_1:9", "db_1:9"),
        ] {
            let address: NodeAddress = given.parse().unwrap();
            assert_eq!(address.to_string(), canonical);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        for (given, reason) in [
            ("host", "no port"),
            ("host:0", "the port"),
            ("host:65536", "the port"),
            ("host:+7", "the port"),
            ("host:", "the port"),
            (":7", "no host"),
            ("::1:7", "brackets"),
            ("[::1:7", "bracket"),
            ("[host]:7", "IPv6"),
            ("[2001:db8::1%eth0]:7", "IPv6"),
            ("[fe80::1%]:7", "IPv6"),
            ("1.2.3:7", "IPv4"),
            ("1.2.3.256:7", "IPv4"),
            ("a b:7", "name"),
            ("-a:7", "name"),
            ("a..b:7", "name"),
            ("0.0.0.0:7", "a single node"),
            ("[::]:7", "a single node"),
            ("224.0.0.1:7", "a single node"),
        ] {
            let error = given.parse::<NodeAddress>().unwrap_err().to_string();
            assert!(error.contains(reason), "{given}: {error}");
            assert!(error.contains(given), "{error}");
        }
    }

    #[test]
    fn a_list_is_checked_as_a_whole() {
        let config = ServerConfig::new(settings(1, &["a:1", "b:1"])).unwrap();
        assert_eq!(config.own().to_string(), "b:1");
        assert_eq!(config.list(), ["a:1", "b:1"]);

        assert!(error(0, &[]).contains("empty"));
        assert!(error(2, &["a:1", "b:1"]).contains("from 0 to 1"));
        assert!(error(0, &["a:1", "A.:1"]).contains("a:1 is listed twice"));
        assert!(error(0, &["10.0.0.1:1", "[::1]:1"]).contains("one family"));
        let ten: Vec<String> = (1..=10).map(|port| format!("a:{port}")).collect();
        let ten: Vec<&str> = ten.iter().map(String::as_str).collect();
        assert!(error(0, &ten).contains("at most 9"));
        assert!(ServerConfig::new(settings(8, &ten[..9])).is_ok());
    }

    #[test]
    fn members_are_removed_after_a_time_in_bounds_or_never() {
        for (given_ms, accepted) in [
            (0, true),
            (1, false),
            (499, false),
            (500, true),
            (3_600_000, true),
            (3_600_001, false),
        ] {
            let shrink_after = Duration::from_millis(given_ms);
            let settings = Settings {
                shrink_after,
                ..settings(0, &["a:1"])
            };
            let taken = ServerConfig::new(settings).map(|config| config.shrink_after_ms);
            let expected = match accepted {
                true => Ok(given_ms),
                false => Err(TimingsError::ShrinkAfter(given_ms).into()),
            };
            assert_eq!(taken, expected);
        }
    }

    #[test]
    fn text_is_taken_by_itself_where_all_nodes_are_on_loopback_addresses() {
        let loopback = "127.0.0.1".parse().unwrap();
        let takes = |text, nodes: &[&str], own| {
            let settings = Settings {
                text,
                ..settings(0, nodes)
            };
            ServerConfig::new(settings).unwrap().takes_text(own)
        };
        for (nodes, expected) in [
            (&["127.0.0.1:1", "127.9.9.9:2"][..], true),
            (&["[::1]:1", "localhost:2", "a.Localhost.:3"], true),
            (&["127.0.0.1:1", "10.0.0.1:2"], false),
            (&["127.0.0.1:1", "host:2"], false),
            (&["localhost.example:1"], false),
        ] {
            assert_eq!(
                takes(TextMode::Auto, nodes, loopback),
                expected,
                "{nodes:?}"
            );
            assert!(takes(TextMode::On, nodes, loopback));
            assert!(!takes(TextMode::Off, nodes, loopback));
        }
        // Whatever a name is claimed to resolve to.
        let other = "10.0.0.1".parse().unwrap();
        assert!(!takes(TextMode::Auto, &["localhost:1"], other));
    }

    #[test]
    fn only_the_first_listed_node_takes_bootstrap() {
        let with = |index| Settings {
            bootstrap: true,
            ..settings(index, &["a:1", "b:1"])
        };
        assert!(ServerConfig::new(with(0)).unwrap().bootstrap);
        let error = ServerConfig::new(with(1)).unwrap_err().to_string();
        assert!(error.contains("a:1") && error.contains("b:1"), "{error}");
    }

    #[test]
    fn votes_are_those_of_the_tie_broken_majority() {
        let of = |nodes| {
            let votes = Votes::of(nodes);
            (votes.needed, votes.total)
        };
        let all: Vec<_> = (1..=9).map(of).collect();
        let expected = [
            (1, 1),
            (2, 3),
            (2, 3),
            (3, 5),
            (3, 5),
            (4, 7),
            (4, 7),
            (5, 9),
            (5, 9),
        ];
        assert_eq!(all, expected);
    }

    proptest! {
        #[test]
        fn what_is_accepted_reads_back_the_same(text in "\\PC{0,40}") {
            if let Ok(address) = text.parse::<NodeAddress>() {
                prop_assert_eq!(address.to_string().parse::<NodeAddress>().unwrap(), address);
            }
        }
    }
}
