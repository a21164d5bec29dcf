use std::fs;
use std::process::Command;

use anyhow::Result;

use super::{Keep, Place};

pub const PORT: u16 = 2181;
/// Where Debian has it.
pub const CLASSES: &str = "/usr/share/java/zookeeper.jar";
const MAIN: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
const LOG_PROPERTIES: &str = "\
log4j.rootLogger=WARN, CONSOLE
log4j.appender.CONSOLE=org.apache.log4j.ConsoleAppender
log4j.appender.CONSOLE.layout=org.apache.log4j.PatternLayout
log4j.appender.CONSOLE.layout.ConversionPattern=%d %p %m%n
";

/// The library does not tell its version; its package does.
pub fn version() -> Option<String> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Version}", "zookeeper"])
        .output()
        .ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    (!version.is_empty()).then_some(version)
}

pub fn command(place: &Place, node: usize) -> Result<Command> {
    let directory = place.node_directory(node);
    let settings = directory.join("zoo.cfg");
    let servers = place.joined("\n", |node, host| {
        format!("server.{}={host}:2888:3888", node + 1)
    });
    let text = format!(
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\nmaxClientCnxns=0\nadmin.enableServer=false\n\
         dataDir={}\nclientPort={PORT}\nclientPortAddress={}\nforceSync={}\n{servers}\n",
        directory.display(),
        place.hosts[node],
        if place.keep == Keep::Fsync {
            "yes"
        } else {
            "no"
        },
    );
    fs::write(&settings, text)?;
    fs::write(directory.join("myid"), (node + 1).to_string())?;
    fs::write(directory.join("log4j.properties"), LOG_PROPERTIES)?;
    let mut command = place.command(node, "/usr/bin/java");
    command
        .args(["-Xmx2g", "-cp"])
        .arg(format!("{}:{CLASSES}", directory.display()))
        .arg(MAIN)
        .arg(settings);
    Ok(command)
}
