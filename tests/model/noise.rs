//! Removes the irrelevant parts of a node's state as text, so that equivalent states are
//! recognized.

/// The text of a state without the parts that do not affect the protocol: counters; when neighbours
/// were last received from and configurations were exchanged; and tables without an order. (Open
/// rounds are also stored with their coordinators; each request arrives once, so the attempts that
/// a session has recorded do not matter; chosen rounds awaiting acknowledgments are checked at
/// heartbeats only.)
pub fn without_noise(mut text: String) -> String {
    for name in [
        "rounds: {",
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
