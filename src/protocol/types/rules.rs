//! Switches for single rules of the protocol. Tests use them to show that they detect the absence
//! of each rule. In ordinary builds `rule!(X)` is `true`; only the cargo feature `mutants` reads a
//! switch.

/// `rule!(R3)`: whether the rule is on.
macro_rules! rule {
    ($rule:ident) => {{
        #[cfg(feature = "mutants")]
        {
            crate::protocol::types::rules::is_on(crate::protocol::types::rules::Rule::$rule)
        }
        #[cfg(not(feature = "mutants"))]
        {
            true
        }
    }};
}
pub(crate) use rule;

#[cfg(feature = "mutants")]
mod switch {
    use std::cell::Cell;

    /// The rules that can be switched off, with their names from docs/protocol.md.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[allow(non_camel_case_types)] // The names are those of the document.
    pub enum Rule {
        B1,
        B1_next,
        B2,
        B2_quorum,
        B2_most,
        Q1,
        Q2,
        V1_repair,
        V1_combined,
        R1,
        R2,
        R3_exact,
        R3_doubt,
        R4_ids,
        R4_quorum,
        R4_finish,
        X1_mark,
        X1_table,
        X1_dropped,
        X1_text,
        X1_hash,
        X1_fresh,
        X1_source,
        X2_node,
        X4_window,
        X5_silence,
        X5_sent,
        X5_hung,
        X7,
        X7_share,
        X8,
        C1_noted,
        C1_chosen,
        C1_promised,
        P1_all,
        P1_floor,
        P1_text,
        L1_wall,
        L1_round,
        L1_read,
        L2,
        X3,
        X3_admitted,
        E1,
        E1_asked,
        E1_anew,
        B3,
        B4,
        B5,
        B5_straight,
        B5_member,
        E2,
        E3_base,
        E3_evidence,
        E4,
        E4_rounds,
        E5,
        E5_promised,
        E5_found,
        E5_accepted,
        E5_taken,
        E5_read,
        E5_summed,
        E5_listed,
        E5_scanned,
        E5_copied,
        E5_compared,
        E5_adopted,
        E5_unnamed,
        E5_dropped,
        E5_purged,
        E5_tombstone,
        E5_floor,
        E5_own,
        E5_ended,
        E5_replaced,
        E6_bound,
        E6_nonce,
        E7,
        E8,
        E8_named,
        E8_behind,
        E8_ids,
        E8_key,
        E8_kept,
        S1_end,
        S1_floor,
        S1_tombstones,
        S2_read,
        W1,
        W1_vote,
        W2,
        W3_deleted,
        W4_settled,
        T1,
        T1_first,
        T1_above,
        T2_absent,
        T2_read,
        T2_under,
        T3_attempt,
        T4,
        T5_read,
        T5_absent,
        T6_abort,
        T6_older,
        T8,
        T11,
    }

    thread_local! {
        static OFF: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// Switches one rule off on this thread. `None` switches all rules on again.
    pub fn switch_off(rule: Option<Rule>) {
        OFF.with(|off| off.set(rule));
    }

    pub fn is_on(rule: Rule) -> bool {
        OFF.with(|off| off.get() != Some(rule))
    }
}

#[cfg(feature = "mutants")]
pub use switch::{Rule, is_on, switch_off};
