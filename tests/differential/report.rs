//! What is said of a difference.

use std::io::{self, Write as _};

use crate::allowed::Answer;
use crate::compare;

/// How much of an answer is shown.
const SHOWN: usize = 2000;

/// Two servers did not do the same.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// What differs, without what only this run has: another run with the same kind shows the same fault.
    pub(crate) kind: String,
    /// Where it differs, and what each said.
    pub(crate) lines: Vec<String>,
}

impl Difference {
    /// Two texts that should be equal.
    pub(crate) fn between(what: &str, texts: [String; 2]) -> Self {
        let mut lines = vec![format!("differs: {what}")];
        lines
            .extend(["etcd", "under test"].iter().zip(texts).map(|(name, text)| format!("{name:>10}: {}", cut(&text))));
        Self { kind: compare::kind(what), lines }
    }

    /// Refuses two answers that are not equal, or that are none.
    pub(crate) fn of_answers(method: &str, answers: &[Answer; 2]) -> Result<(), Self> {
        let [one, other] = answers;
        let broken = one.code.is_none() || other.code.is_none();
        let Some(path) = compare::answers(one, other).or_else(|| broken.then(|| "no answer".to_owned())) else {
            return Ok(());
        };
        Err(Self::between(&format!("{method}: {path}"), answers.each_ref().map(told)))
    }
}

/// Writes lines of the result; a closed pipe is nobody's fault.
pub(crate) fn say(lines: &str) {
    writeln!(io::stdout(), "{lines}").ok();
}

/// An answer as text.
pub(crate) fn told(answer: &Answer) -> String {
    let code = answer.code.map_or("none".to_owned(), |code| code.to_string());
    let messages: Vec<String> = answer.messages.iter().map(|message| message.to_text_format()).collect();
    format!("code {code} {:?} {}", answer.text, crate::symbols::with_names(&messages.join(" | ")))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}
