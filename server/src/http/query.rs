//! The query of a probe.

use std::collections::BTreeSet;

use http::Uri;
use url::form_urlencoded;

/// What a probe asks for behind the `?`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query {
    /// Alarms or checks to leave out.
    pub(super) exclude: BTreeSet<String>,
    /// Whether to look at this member only.
    pub(super) serializable: bool,
    /// Whether to list the checks although all is well.
    pub(super) verbose: bool,
}

impl Query {
    pub(super) fn of(uri: &Uri) -> Query {
        let mut query = Query::default();
        let mut serializable = None;
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                "exclude" if !value.is_empty() => {
                    query.exclude.insert(value.into_owned());
                }
                // The first one counts, as in Go.
                "serializable" => serializable = serializable.or(Some(value == "true")),
                "verbose" => query.verbose = true,
                _ => {}
            }
        }
        query.serializable = serializable.unwrap_or(false);
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let query = |text: &str| Query::of(&format!("/health{text}").parse().unwrap());
        assert_eq!(query(""), Query::default());
        assert_eq!(query("?"), Query::default());
        let all = query("?exclude=NOSPACE&exclude=a%20b&exclude=&serializable=true&verbose&other=1");
        assert_eq!(all.exclude, BTreeSet::from(["NOSPACE".to_owned(), "a b".to_owned()]));
        assert!(all.serializable && all.verbose);
        assert!(!query("?serializable=1").serializable);
        assert!(!query("?serializable=false&serializable=true").serializable);
        assert!(query("?verbose=false").verbose);
    }
}
