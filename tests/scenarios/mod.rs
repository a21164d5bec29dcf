//! Scenarios by the part of the protocol that they are about.

pub mod absences;
pub mod alone;
pub mod ballots;
pub mod bootstrap;
pub mod catching_up;
pub mod changes;
pub mod clocks;
pub mod exactly_once;
pub mod forwards;
pub mod handoff;
pub mod hung_disks;
pub mod lives;
pub mod members;
pub mod operator;
pub mod outcomes;
pub mod pace;
pub mod persisted;
pub mod purge;
pub mod reads;
pub mod reported;
pub mod rollbacks;
pub mod rounds;
pub mod sealing;
pub mod sizes;
pub mod text;
