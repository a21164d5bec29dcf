//! What the text of a node's state has to be rid of, so that like states are told to be alike.

/// The text of a state without what says nothing of the protocol's: counts, when neighbours were
/// heard and configurations exchanged, and tables that are in no order (open rounds stand with their
/// coordinators; each request comes once, so it does not matter what a session has seen; whom a chosen
/// round has not reached is looked at with heartbeats only).
pub fn without_noise(mut text: String) -> String {
    for name in [
        "rounds: {",
        "counters: Counters {",
        "sessions: Sessions {",
        "exchanged_us: {",
        "chosen_rounds: Rounds {",
    ] {
        let Some(start) = text.find(name) else {
            continue;
        };
        let mut depth = 0;
        let end = text[start..].find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == '}' && depth == 0
        });
        let end = start + end.expect("braces come in pairs");
        text.replace_range(start..=end, "");
    }
    for name in ["messages_sent: ", "messages_relayed: ", "heard_us: "] {
        let mut from = 0;
        while let Some(place) = text[from..].find(name) {
            let start = from + place + name.len();
            let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
            text.replace_range(start..start + digits, "");
            from = start;
        }
    }
    text
}
