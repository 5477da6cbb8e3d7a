//! What was set, and where: flags, variables or the file become one list of checked texts.

use std::collections::{BTreeMap, BTreeSet};

use super::feature_gates::FeatureGates;
use super::go::{self, Token, ValueError};
use super::notice::Notice;
use super::refusal::Refusal;
use super::size;
use super::table::{self, Flag, Kind};
use super::url::Url;

/// The flags that were set, each with a text that its kind accepts.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    values: BTreeMap<&'static str, String>,
}

impl Settings {
    /// Reads a command line, without the program's name. Stops at the first mistake, as Go does.
    pub(super) fn from_arguments(
        arguments: &[String],
        notices: &mut Vec<Notice>,
    ) -> Result<(Settings, CommandLine), Refusal> {
        let mut settings = Settings::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let (name, inline) = match go::token(argument) {
                Token::Flag { name, value } => (name, value),
                Token::Positional(argument) => return Ok((settings, CommandLine::Positional(argument.to_owned()))),
                Token::End => match arguments.next() {
                    Some(argument) => return Ok((settings, CommandLine::Positional(argument.clone()))),
                    None => break,
                },
                Token::Bad => return Err(Refusal::Usage(format!("bad flag syntax: {argument}"))),
            };
            let Some(target) = Target::named(name) else {
                if matches!(name, "h" | "help") {
                    return Ok((settings, CommandLine::Help));
                }
                return Err(Refusal::Usage(format!("flag provided but not defined: -{name}")));
            };
            let value = match inline {
                Some(value) => value.to_owned(),
                None if target.stands_alone() => "true".to_owned(),
                None => match arguments.next() {
                    Some(value) => value.clone(),
                    None => return Err(Refusal::Usage(format!("flag needs an argument: -{name}"))),
                },
            };
            settings.set(&target, &value).map_err(|why| {
                Refusal::Usage(match target.kind() {
                    Kind::Bool => format!("invalid boolean value {value:?} for -{name}: {why}"),
                    _ => format!("invalid value {value:?} for flag -{name}: {why}"),
                })
            })?;
            target.note(name, notices);
        }
        Ok((settings, CommandLine::Flags))
    }

    /// Adds what the environment says. A variable beside its own flag is a mistake.
    pub(super) fn add_variables(
        &mut self,
        variables: &[(String, String)],
        notices: &mut Vec<Notice>,
    ) -> Result<(), Refusal> {
        let on_command_line: BTreeSet<&'static str> = self.values.keys().copied().collect();
        for (variable, value) in variables {
            let Some(name) = flag_name(variable).filter(|_| !value.is_empty()) else { continue };
            match variable.as_str() {
                // Some tools set these for etcd itself; they are no settings.
                "ETCD_UNSUPPORTED_ARCH" => continue,
                "ETCD_VERSION" => {
                    notices.push(Notice::VersionVariable);
                    continue;
                }
                _ => {}
            }
            let Some(target) = Target::named(&name) else {
                notices.push(Notice::UnknownVariable(variable.clone()));
                continue;
            };
            // Gates add up, so only the same one is in the way.
            let shadowed = match target {
                Target::Flag(flag) => on_command_line.contains(flag.name),
                Target::Gate(gate) => self.text("feature-gates").split('=').any(|text| text.ends_with(gate)),
            };
            if shadowed {
                return Err(Refusal::ShadowedVariable(variable.clone()));
            }
            self.set(&target, value)
                .map_err(|why| Refusal::Invalid(format!("invalid value {value:?} for {variable}: {why}")))?;
            notices.push(Notice::VariableUsed(variable.clone()));
            target.note(&name, notices);
        }
        Ok(())
    }

    /// Checks a text and keeps it; a later one replaces it. The error tells what is wrong with it.
    pub(super) fn set_flag(&mut self, flag: &'static Flag, value: &str) -> Result<(), String> {
        self.set(&Target::Flag(flag), value)
    }

    fn set(&mut self, target: &Target, value: &str) -> Result<(), String> {
        let text = match target {
            Target::Flag(flag) => canonical(flag.kind, value)?,
            Target::Gate(gate) => format!("{gate}={}", canonical(Kind::Bool, value)?),
        };
        match self.values.get_mut(target.flag_name()) {
            Some(gates) if *target.kind() == Kind::Gates || matches!(target, Target::Gate(_)) => {
                gates.push(',');
                gates.push_str(&text);
            }
            _ => {
                self.values.insert(target.flag_name(), text);
            }
        }
        Ok(())
    }

    /// Forgets that a flag was set.
    pub(super) fn unset(&mut self, name: &'static str) {
        self.values.remove(name);
    }

    /// Whether a flag was set at all, be it to its default.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The flags that were set to something else than their default.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&'static Flag, &str)> {
        table::all().filter_map(|flag| {
            let value = self.values.get(flag.name)?;
            let default = canonical(flag.kind, flag.default).ok();
            (default.as_deref() != Some(value)).then_some((flag, value.as_str()))
        })
    }

    /// The flags that were set.
    pub(super) fn set_flags(&self) -> impl Iterator<Item = &'static str> {
        self.values.keys().copied()
    }

    /// The text of a flag, or its default.
    pub(super) fn text(&self, name: &str) -> &str {
        match self.values.get(name) {
            Some(value) => value,
            None => flag(name).default,
        }
    }

    /// A flag of [`Kind::Bool`].
    pub(super) fn bool(&self, name: &str) -> bool {
        go::parse_bool(self.text(name)).expect("checked when it was set")
    }

    /// A flag of [`Kind::Uint`] or [`Kind::Uint32`].
    pub(super) fn uint(&self, name: &str) -> u64 {
        go::parse_uint(self.text(name), 64).expect("checked when it was set")
    }

    /// A flag of [`Kind::Int`].
    pub(super) fn int(&self, name: &str) -> i64 {
        go::parse_int(self.text(name)).expect("checked when it was set")
    }

    /// A flag of [`Kind::Size`].
    pub(super) fn bytes(&self, name: &str) -> u64 {
        size::parse(self.text(name)).expect("checked when it was set")
    }

    /// A flag of [`Kind::Duration`], in nanoseconds; Go's durations may be negative.
    pub(super) fn nanoseconds(&self, name: &str) -> i64 {
        go::parse_duration(self.text(name)).expect("checked when it was set")
    }

    /// A flag of [`Kind::Urls`]; an empty text leaves the default, as in etcd.
    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        let text = match self.text(name) {
            "" => flag(name).default,
            text => text,
        };
        if text.is_empty() {
            return Vec::new();
        }
        let mut urls = Url::parse_list(text).expect("checked when it was set");
        urls.dedup();
        urls
    }

    /// A flag of [`Kind::Texts`] or [`Kind::Origins`]: sorted, each once.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let texts: BTreeSet<&str> = self.text(name).split(',').filter(|text| !text.is_empty()).collect();
        texts.into_iter().map(str::to_owned).collect()
    }

    /// The feature gates.
    pub(super) fn gates(&self) -> FeatureGates {
        FeatureGates::parse(self.text("feature-gates")).expect("checked when it was set")
    }
}

/// What a command line turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CommandLine {
    /// Flags, and nothing else.
    Flags,
    /// A call for help.
    Help,
    /// Something that is not a flag came after the flags.
    Positional(String),
}

/// What a name on the command line stands for.
enum Target {
    Flag(&'static Flag),
    /// A flag of etcd 3.5 and 3.6 that is a feature gate now.
    Gate(&'static str),
}

impl Target {
    /// Finds a name. `experimental-x` is taken for `x`: etcd 3.7 dropped these names, but tools
    /// that were written for 3.5 still pass them.
    fn named(name: &str) -> Option<Target> {
        if let Some(gate) = table::former_gate(name) {
            return Some(Target::Gate(gate));
        }
        let today = name.strip_prefix("experimental-").unwrap_or(name);
        table::find(today).map(Target::Flag)
    }

    fn kind(&self) -> &Kind {
        match self {
            Target::Flag(flag) => &flag.kind,
            Target::Gate(_) => &Kind::Bool,
        }
    }

    fn flag_name(&self) -> &'static str {
        match self {
            Target::Flag(flag) => flag.name,
            Target::Gate(_) => "feature-gates",
        }
    }

    fn stands_alone(&self) -> bool {
        matches!(self.kind(), Kind::Bool | Kind::Ignored)
    }

    fn note(&self, name: &str, notices: &mut Vec<Notice>) {
        match self {
            Target::Gate(gate) => notices.push(Notice::FormerGate { flag: name.to_owned(), gate }),
            Target::Flag(flag) if flag.name != name => {
                notices.push(Notice::FormerName { flag: name.to_owned(), today: flag.name });
            }
            Target::Flag(flag) if flag.kind == Kind::Ignored => notices.push(Notice::FormerFlag(flag.name)),
            Target::Flag(_) => {}
        }
    }
}

/// `ETCD_MY_FLAG` → `my-flag`.
fn flag_name(variable: &str) -> Option<String> {
    Some(variable.strip_prefix("ETCD_")?.to_ascii_lowercase().replace('_', "-"))
}

fn flag(name: &str) -> &'static Flag {
    table::find(name).expect("the flags that are asked for stand in the table")
}

/// Checks a text against a kind and brings it into one form, so that equal values are equal texts.
fn canonical(kind: Kind, text: &str) -> Result<String, String> {
    let checked = match kind {
        Kind::Bool => go::parse_bool(text).map(|value| value.to_string()).map_err(|e| e.to_string())?,
        Kind::Uint => go::parse_uint(text, 64).map(|value| value.to_string()).map_err(|e| e.to_string())?,
        Kind::Uint32 => go::parse_uint(text, 32).map(|value| value.to_string()).map_err(|e| strconv(text, e))?,
        Kind::Int => go::parse_int(text).map(|value| value.to_string()).map_err(|e| e.to_string())?,
        Kind::Size => size::parse(text).map(|value| value.to_string()).map_err(|e| e.to_string())?,
        Kind::Duration => go::parse_duration(text).map(go::format_duration).map_err(|e| e.to_string())?,
        Kind::Urls if text.is_empty() => String::new(),
        Kind::Urls => super::url::join(&Url::parse_list(text).map_err(|e| e.to_string())?),
        Kind::Origins if text.is_empty() || text == "*" => text.to_owned(),
        Kind::Origins => super::url::join(&Url::parse_list(text).map_err(|e| e.to_string())?),
        Kind::OneOf(words) if !words.contains(&text) => return Err("invalid value".to_owned()),
        Kind::SomeOf(words) => match text.split(',').find(|word| !words.contains(word)) {
            Some(word) => return Err(format!("invalid value {word:?}")),
            None => text.to_owned(),
        },
        Kind::Gates => {
            FeatureGates::parse(text).map_err(|e| e.to_string())?;
            text.to_owned()
        }
        Kind::OneOf(_) | Kind::Text | Kind::Texts | Kind::Ignored => text.to_owned(),
    };
    Ok(checked)
}

/// What etcd's own kind of flag says, which does not shorten the error of `strconv`.
fn strconv(text: &str, error: ValueError) -> String {
    let why = match error {
        ValueError::Syntax => "invalid syntax",
        ValueError::Range => "value out of range",
    };
    format!("strconv.ParseUint: parsing {text:?}: {why}")
}
