//! The shortest list of causes that still has the effect: delta debugging (Zeller's ddmin).
//!
//! Knows nothing of what is shrunk; a cause is a number, and whether a choice of them still has the
//! effect is asked of the caller.

/// Shrinks the causes `0..count`, which together have the effect, to a choice that has it too and of
/// which none can be left out.
///
/// `try_out` gets up to `width` choices, which it may try at the same time, and says of each whether
/// it still has the effect; `None` ends the search, and the best choice so far is returned.
pub fn shrink(count: usize, width: usize, mut try_out: impl FnMut(&[Vec<usize>]) -> Option<Vec<bool>>) -> Vec<usize> {
    let mut first = |choices: Vec<Vec<usize>>| -> Option<Option<Vec<usize>>> {
        for some in choices.chunks(width.max(1)) {
            let found = try_out(some)?;
            if let Some(place) = found.iter().position(|has| *has) {
                return Some(Some(some[place].clone()));
            }
        }
        Some(None)
    };
    let mut best: Vec<usize> = (0..count).collect();
    // Without any cause at all: then the effect has another one.
    match first(vec![Vec::new()]) {
        Some(None) => {}
        Some(Some(nothing)) => return nothing,
        None => return best,
    }
    let mut parts = 2;
    while best.len() > 1 {
        let chunks: Vec<&[usize]> = best.chunks(best.len().div_ceil(parts)).collect();
        let mut choices: Vec<Vec<usize>> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        if chunks.len() > 2 {
            // Of two parts, each is what the other leaves.
            let others = |left: usize| chunks.iter().enumerate().filter(move |(place, _)| *place != left);
            choices.extend((0..chunks.len()).map(|left| others(left).flat_map(|(_, chunk)| chunk.to_vec()).collect()));
        }
        match first(choices) {
            None => break,
            Some(Some(smaller)) => {
                // A single part begins anew; with one part left out the others keep their size.
                let lost = best.len() - smaller.len();
                parts = if smaller.len() <= lost { 2 } else { (parts - 1).max(2) };
                best = smaller;
            }
            Some(None) if parts >= best.len() => break,
            Some(None) => parts = (parts * 2).min(best.len()),
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shrinks with a predicate over choices, and counts what it was asked.
    fn with(count: usize, width: usize, fails: impl Fn(&[usize]) -> bool) -> (Vec<usize>, usize) {
        let mut asked = 0;
        let best = shrink(count, width, |choices| {
            assert!(choices.len() <= width, "more at a time than there is room for");
            asked += choices.len();
            Some(choices.iter().map(|choice| fails(choice)).collect())
        });
        (best, asked)
    }

    fn has(all: &'static [usize]) -> impl Fn(&[usize]) -> bool {
        move |choice| all.iter().all(|cause| choice.contains(cause))
    }

    #[test]
    fn finds_exactly_the_causes() {
        let cases: &[&[usize]] = &[&[], &[0], &[39], &[7, 31], &[0, 1, 2], &[3, 14, 15, 38], &[0, 39]];
        for causes in cases {
            for width in [1, 2, 8] {
                assert_eq!(with(40, width, has(causes)).0, *causes, "width {width}");
            }
        }
    }

    #[test]
    fn everything_may_be_needed() {
        assert_eq!(with(6, 2, has(&[0, 1, 2, 3, 4, 5])).0, [0, 1, 2, 3, 4, 5]);
        assert_eq!(with(1, 2, has(&[0])).0, [0]);
        assert_eq!(with(0, 2, has(&[])).0, [0; 0]);
    }

    #[test]
    fn one_cause_among_many_is_cheap() {
        let (best, asked) = with(1024, 1, has(&[700]));
        assert_eq!(best, [700]);
        assert!(asked <= 30, "asked {asked} times");
    }

    #[test]
    fn of_the_result_none_can_be_left_out() {
        // Not monotone: an odd number of faults below ten, and one above thirty.
        let fails = |choice: &[usize]| {
            choice.iter().filter(|cause| **cause < 11).count() % 2 == 1 && choice.iter().any(|cause| *cause > 30)
        };
        let (best, _) = with(40, 2, fails);
        assert!(fails(&best));
        for left in 0..best.len() {
            let mut fewer = best.clone();
            fewer.remove(left);
            assert!(!fails(&fewer), "{best:?} without {left}");
        }
    }

    #[test]
    fn when_the_budget_is_spent_the_best_so_far_stays() {
        for budget in 0..20 {
            let mut left = budget;
            let best = shrink(64, 2, |choices| {
                left = usize::checked_sub(left, choices.len())?;
                Some(choices.iter().map(|choice| has(&[5, 60])(choice)).collect())
            });
            assert!(best.contains(&5) && best.contains(&60), "budget {budget}: {best:?}");
        }
    }
}
