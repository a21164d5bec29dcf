//! Names that a test sets and removes: an /etc/hosts and a name server only for its own thread and
//! for the threads and processes that it starts.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// The name server of the lab; nothing answers there.
const DEAD_SERVER: &str = "127.0.0.53:53";

#[derive(Debug)]
pub struct Hosts {
    directory: TempDir,
    lines: Vec<(String, String)>,
    /// Requests to it get no answer.
    _server: Option<UdpSocket>,
}

impl Hosts {
    /// `None` outside of the lab, where nothing may be mounted. All names but those given here have
    /// no address.
    pub fn new() -> Option<Hosts> {
        std::env::var_os("HORSESHOE_LAB")?;
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of the thread's own");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount::<str, str, str, str>(None, "/", None, private, None).expect("private mounts");
        let directory = tempfile::tempdir().expect("a temporary directory");
        let hosts = Hosts {
            directory,
            lines: Vec::new(),
            _server: None,
        };
        hosts.put("hosts", "127.0.0.1 localhost\n");
        hosts.put("resolv.conf", "nameserver 127.0.0.54\noptions attempts:1\n");
        hosts.put("nsswitch.conf", "hosts: files dns\n");
        for file in ["hosts", "resolv.conf", "nsswitch.conf"] {
            let target = Path::new("/etc").join(file);
            if target.exists() {
                let source = hosts.directory.path().join(file);
                let bind = MsFlags::MS_BIND;
                mount::<Path, Path, str, str>(Some(&source), &target, None, bind, None)
                    .expect("a file can be bound over another");
            }
        }
        Some(hosts)
    }

    /// From here on the name server receives requests and does not answer.
    pub fn with_dead_server(mut self) -> Hosts {
        self._server = UdpSocket::bind(DEAD_SERVER).ok();
        self.put("resolv.conf", "nameserver 127.0.0.53\n");
        self
    }

    /// Sets the address of a name from here on; `None`: it has none.
    pub fn set(&mut self, name: &str, address: Option<&str>) {
        self.set_all(name, address.as_slice());
    }

    /// The same for a name with several addresses, in this order.
    pub fn set_all(&mut self, name: &str, addresses: &[&str]) {
        self.lines.retain(|(other, _)| other != name);
        let lines = addresses
            .iter()
            .map(|at| (name.to_owned(), (*at).to_owned()));
        self.lines.extend(lines);
        let lines = self
            .lines
            .iter()
            .map(|(name, address)| format!("{address} {name}\n"));
        self.put(
            "hosts",
            &format!("127.0.0.1 localhost\n{}", lines.collect::<String>()),
        );
    }

    /// Overwrites the file in place, because it is mounted.
    fn put(&self, file: &str, text: &str) {
        fs::write(self.directory.path().join(file), text).expect("a file in a temporary directory");
    }
}
