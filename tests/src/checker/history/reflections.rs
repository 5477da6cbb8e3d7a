//! Who lists once and watches from there on has what a list shows.

use crate::history::{History, KeyValue};

/// Checks of every cache that was kept by a list and a watch that it was what the store held at the revision that it
/// had got to.
pub fn check(history: &History) -> Result<(), String> {
    for reflection in &history.reflections {
        let (cached, listed) = (&reflection.cached, &reflection.listed);
        if cached == listed {
            continue;
        }
        let lacks = |these: &[KeyValue], others: &[KeyValue]| these.iter().find(|kv| !others.contains(kv)).cloned();
        let (stale, missed) = (lacks(cached, listed), lacks(listed, cached));
        return Err(format!(
            "client {} listed, watched up to revision {}, and had {stale:?} where a list has {missed:?}",
            reflection.client, reflection.revision
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sample::expect;
    use super::*;
    use crate::history::Reflection;

    fn kv(key: &str, modified: i64) -> KeyValue {
        KeyValue { key: key.into(), created: 2, modified, version: 1, ..KeyValue::default() }
    }

    fn found(cached: &[KeyValue]) -> Result<(), String> {
        let (cached, listed) = (cached.to_vec(), vec![kv("a", 3), kv("b", 2)]);
        let reflection = Reflection { client: 1, revision: 4, cached, listed };
        check(&History { reflections: vec![reflection], ..History::default() })
    }

    #[test]
    fn a_cache_that_was_told_everything_passes() {
        assert_eq!(check(&History::default()), Ok(()));
        assert_eq!(found(&[kv("a", 3), kv("b", 2)]), Ok(()));
    }

    #[test]
    fn a_cache_that_missed_something_is_found() {
        for cached in [&[kv("a", 2), kv("b", 2)][..], &[kv("a", 3)], &[kv("a", 3), kv("b", 2), kv("c", 4)], &[]] {
            expect(found(cached), "client 1 listed, watched up to revision 4, and had");
        }
    }
}
