//! Five nodes, each in a network of its own, of which each reaches only its neighbours: a chain.
//! The client reaches all of them. Needs root, and a network namespace that nothing else uses.

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::systems::NODES;

/// A network for each node: this end of its cable has the last number 1, the node 2.
fn address(node: usize, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, node as u8, last)
}

/// The networks; they are gone when it is dropped.
pub struct Chain {
    holders: Vec<Child>,
}

impl Chain {
    pub fn build() -> Result<Self> {
        let mut chain = Chain {
            holders: Vec::new(),
        };
        run("ip", &["link", "set", "lo", "up"])?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot forward packets")?;
        for node in 0..NODES {
            // A process holds the namespace open.
            let holder = Command::new("unshare")
                .args(["-n", "sleep", "infinity"])
                .stdin(Stdio::null())
                .spawn()
                .context("cannot start unshare")?;
            let pid = holder.id().to_string();
            chain.holders.push(holder);
            // Until then the process is still in this namespace.
            std::thread::sleep(Duration::from_millis(100));
            let (near, far) = (format!("near{node}"), format!("far{node}"));
            let (here, there) = (address(node, 1).to_string(), address(node, 2).to_string());
            run(
                "ip",
                &["link", "add", &near, "type", "veth", "peer", "name", &far],
            )?;
            run("ip", &["link", "set", &far, "netns", &pid])?;
            run("ip", &["addr", "add", &format!("{here}/24"), "dev", &near])?;
            run("ip", &["link", "set", &near, "up"])?;
            let within = |words: &[&str]| {
                let enter = ["-t", &pid, "-n", "ip"];
                run("nsenter", &[&enter, words].concat())
            };
            within(&["link", "set", "lo", "up"])?;
            within(&["addr", "add", &format!("{there}/24"), "dev", &far])?;
            within(&["link", "set", &far, "up"])?;
            within(&["route", "add", "default", "via", &here])?;
        }
        Ok(chain)
    }

    pub fn hosts(&self) -> Vec<String> {
        (0..NODES)
            .map(|node| address(node, 2).to_string())
            .collect()
    }

    pub fn wrappers(&self) -> Vec<Vec<String>> {
        let enter = |holder: &Child| {
            let pid = holder.id().to_string();
            ["nsenter", "-t", &pid, "-n"].map(str::to_owned).to_vec()
        };
        self.holders.iter().map(enter).collect()
    }

    /// Cuts all links but those between neighbours.
    pub fn cut(&self) -> Result<()> {
        for from in 0..NODES {
            for to in (0..NODES).filter(|to| from.abs_diff(*to) > 1) {
                let (from, to) = (address(from, 2).to_string(), address(to, 2).to_string());
                let rule = ["-A", "FORWARD", "-s", &from, "-d", &to, "-j", "DROP"];
                run("iptables", &rule)?;
            }
        }
        Ok(())
    }

    pub fn heal(&self) -> Result<()> {
        run("iptables", &["-F", "FORWARD"])
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let ended = holder.kill().and_then(|()| holder.wait());
            if let Err(error) = ended {
                eprintln!("the holder of a network was not stopped: {error}");
            }
        }
    }
}

fn run(program: &str, words: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(words)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {}: {}", words.join(" "), errors.trim());
    }
    Ok(())
}
