//! Where the time of proposals goes, as the metrics tell it.

use super::*;

/// What the leader counts of every proposal, in order.
const AT_THE_LEADER: [&str; 5] = ["proposed", "flushed", "replicated", "applied", "replied"];

const FORWARDED: &str = "forwarded";

/// A number that a member shows; 0 where it does not show it.
fn shown(member: &Running, series: &str) -> f64 {
    let text = String::from_utf8(member.services.metrics.text()).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

/// How many proposals have ended a stage, and how long it took them together.
fn stage(member: &Running, stage: &str) -> (f64, f64) {
    let of =
        |what| shown(member, &format!(r#"mainstay_server_proposal_stage_duration_seconds_{what}{{stage="{stage}"}}"#));
    (of("count"), of("sum"))
}

fn stages(member: &Running) -> [(f64, f64); 5] {
    AT_THE_LEADER.map(|name| stage(member, name))
}

/// How long the puts of a member's clients took together.
fn puts_took(member: &Running) -> f64 {
    shown(member, r#"etcd_server_request_duration_seconds_sum{success="true",type="Put"}"#)
}

/// What the stages took together since a look at them, after so many proposals went through each.
fn took_since(before: &[(f64, f64); 5], now: &[(f64, f64); 5], proposals: f64) -> f64 {
    for ((name, before), now) in AT_THE_LEADER.iter().zip(before).zip(now) {
        assert_eq!(now.0 - before.0, proposals, "{name}");
        assert!(now.1 >= before.1, "{name}");
    }
    now.iter().zip(before).map(|(now, before)| now.1 - before.1).sum()
}

#[test]
fn the_stages_of_a_proposal_are_its_whole_time() {
    simulate(170, |machines, members| async move {
        const PUTS: usize = 20;
        let leads = leader(&members).await;
        let follows = (leads + 1) % MEMBERS;
        sleep(Duration::from_secs(2)).await; // until all have published themselves
        let (leading, following) = (&members[leads], &members[follows]);

        let (before, took_before) = (stages(leading), puts_took(leading));
        let forwarded_before = stage(leading, FORWARDED).0;
        for number in 0..PUTS {
            assert!(put(&machines[leads], leading, &format!("here {number}")).await);
        }
        let now = stages(leading);
        let whole = puts_took(leading) - took_before;
        let of_stages = took_since(&before, &now, PUTS as f64);
        assert!(whole > 0.0 && (of_stages - whole).abs() < 1e-6, "{of_stages} of {whole} seconds");
        let replicated = now[2].1 - before[2].1;
        assert!(replicated > 0.0, "messages to a majority take their time");
        assert_eq!(stage(leading, FORWARDED).0, forwarded_before, "nothing was passed on");

        // What a follower's client proposes: the follower sees one stage, the leader all of them.
        let (before, own_before) = (stages(leading), stages(following));
        let (forwarded_before, took_before) = (stage(following, FORWARDED), puts_took(following));
        for number in 0..PUTS {
            assert!(put(&machines[follows], following, &format!("there {number}")).await);
        }
        let forwarded = stage(following, FORWARDED);
        assert_eq!(forwarded.0 - forwarded_before.0, PUTS as f64);
        let (of_stage, whole) = (forwarded.1 - forwarded_before.1, puts_took(following) - took_before);
        assert!(whole > 0.0 && (of_stage - whole).abs() < 1e-6, "{of_stage} of {whole} seconds");
        assert_eq!(stages(following), own_before, "it puts nothing into the log by itself");
        let at_the_leader = took_since(&before, &stages(leading), PUTS as f64);
        assert!(at_the_leader > 0.0 && at_the_leader < whole, "{at_the_leader} of {whole} seconds");
    });
}
