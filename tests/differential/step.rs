//! A step of a script: who does what. Scripts are text, a line a step:
//!
//! ```text
//! # a client's number, a method, the request in protobuf's text format
//! 0 KV.Put key: "a" value: "1"
//! 3 KV.Range key: "a" revision: @now-1
//! ```

use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail, ensure};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, ReflectMessage as _};

use mainstay_tests::schema;

use crate::symbols;

/// How many clients a script has.
pub(crate) const CLIENTS: usize = 8;

/// Who may do everything, in scripts that turn authentication on.
pub(crate) const ROOT: &str = "root";
/// Its password, which no step changes.
pub(crate) const ROOT_PASSWORD: &str = "r";

/// What a client does.
#[derive(Clone, PartialEq)]
pub(crate) struct Step {
    pub(crate) client: usize,
    pub(crate) kind: Kind,
    pub(crate) request: DynamicMessage,
}

/// What a step is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A call, or for the two methods with streams of requests one message on the client's stream.
    Method(MethodDescriptor),
    /// What no method does; the request is of script.proto and says what.
    Special,
}

impl Step {
    /// A call of a method with a generated message.
    pub(crate) fn call(client: usize, method: &str, request: &impl prost::Message) -> Self {
        let method = schema::method(method).unwrap_or_else(|| panic!("no method is named {method}"));
        Self { client, request: schema::dynamic(method.input(), request), kind: Kind::Method(method) }
    }

    /// A message of script.proto by its name, in text format.
    pub(crate) fn special(client: usize, name: &str, text: &str) -> Result<Self> {
        let descriptor = special(name).with_context(|| format!("nothing is named {name}"))?;
        let request = DynamicMessage::parse_text_format(descriptor, &symbols::without_names(text))?;
        Ok(Self { client, kind: Kind::Special, request })
    }

    /// The name of the method, or of the message of script.proto.
    pub(crate) fn name(&self) -> String {
        match &self.kind {
            Kind::Method(method) => schema::short_name(method),
            Kind::Special => self.request.descriptor().name().to_owned(),
        }
    }

    fn parse(line: &str) -> Result<Self> {
        let (client, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let client = client.parse().with_context(|| format!("{client:?} is no client's number"))?;
        ensure!(client < CLIENTS, "clients are numbered below {CLIENTS}");
        let Some(method) = schema::method(name) else { return Self::special(client, name, text) };
        let request = DynamicMessage::parse_text_format(method.input(), &symbols::without_names(text))?;
        Ok(Self { client, kind: Kind::Method(method), request })
    }
}

/// As it is written: a message with its descriptors is no text for people.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = symbols::with_names(&self.request.to_text_format());
        write!(f, "{} {}{}{text}", self.client, self.name(), if text.is_empty() { "" } else { " " })
    }
}

/// The messages of script.proto.
fn special(name: &str) -> Option<MessageDescriptor> {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("differential");
        let file = protox::compile(["script.proto"], [folder]).expect("the file is correct");
        DescriptorPool::from_file_descriptor_set(file).expect("it needs no other")
    });
    pool.get_message_by_name(&format!("script.{name}"))
}

/// Reads a script.
pub(crate) fn parse(script: &str) -> Result<Vec<Step>> {
    let lines = script.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| Step::parse(line).with_context(|| format!("line {}", number + 1))).collect()
}

/// Reads a script's file.
pub(crate) fn read(path: &Path) -> Result<Vec<Step>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let steps = parse(&text).with_context(|| format!("in {}", path.display()))?;
    if steps.is_empty() {
        bail!("{} has no steps", path.display());
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_what_was_printed() {
        let script = r#"# a comment

0 KV.Put key:"a\000\377",value:"\"1"
3 KV.Range key:"a",revision:@now-1,sort_order:9
7 Watch.Watch progress_request{}
2 Auth.AuthEnable
1 Expire ID:4,TTL:1,keys:["a","b"]
0 Scan
"#;
        let steps = parse(script).unwrap();
        let printed: Vec<String> = steps.iter().map(Step::to_string).collect();
        let lines: Vec<&str> = script.lines().skip(2).collect();
        assert_eq!(printed, lines);
    }

    #[test]
    fn faults_name_their_line() {
        for (script, fault) in [
            ("0 Scan\n0 KV.Push key:'a'", "line 2"),
            ("x Scan", "\"x\" is no client's number"),
            ("8 Scan", "numbered below"),
            ("0 KV.Put color:1", "line 1"),
            ("0 KV.Range revision:@never-1", "line 1"),
        ] {
            let error = format!("{:#}", parse(script).unwrap_err());
            assert!(error.contains(fault), "{script}: {error}");
        }
    }
}
