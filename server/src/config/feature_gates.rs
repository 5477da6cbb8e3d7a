//! etcd's feature gates: `--feature-gates A=true,B=false`.

use super::go;

/// Features that can be switched, with etcd's names and defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureGates {
    enabled: [bool; GATES.len()],
}

/// A feature that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// gRPC health says NOT_SERVING while this member defragments.
    StopGrpcServiceOnDefrag,
    /// Compare the data with the peers' before serving.
    InitialCorruptCheck,
    /// The leader compares the members' hashes after compactions.
    CompactHashCheck,
    /// Internal to etcd.
    TxnModeWriteWithSharedBuffer,
    /// Replicate the remaining time of leases.
    LeaseCheckpoint,
    /// And keep it across restarts.
    LeaseCheckpointPersist,
    /// Dial peers from the address that they know.
    SetMemberLocalAddr,
    /// A lease's renewal does not wait for applying.
    FastLeaseKeepAlive,
    /// Revoking leases and the like goes before other requests.
    PriorityRequest,
}

struct Row {
    gate: Gate,
    name: &'static str,
    stage: &'static str,
    default: bool,
    /// Why switching it does nothing here.
    no_effect: &'static str,
}

const ALWAYS: &str = "this release does so anyway";
const AT_START: &str = "members always compare themselves at their start here; one that differs comes up out of service, \
     named in the alarm CORRUPT, and does not end";

const GATES: [Row; 9] = [
    row(Gate::StopGrpcServiceOnDefrag, "StopGRPCServiceOnDefrag", ALPHA, "defragmenting stops nobody here"),
    row(Gate::InitialCorruptCheck, "InitialCorruptCheck", ALPHA, AT_START),
    row(Gate::CompactHashCheck, "CompactHashCheck", ALPHA, ALWAYS),
    row(Gate::TxnModeWriteWithSharedBuffer, "TxnModeWriteWithSharedBuffer", BETA, "it is about bbolt"),
    row(Gate::LeaseCheckpoint, "LeaseCheckpoint", ALPHA, ALWAYS),
    row(Gate::LeaseCheckpointPersist, "LeaseCheckpointPersist", ALPHA, ALWAYS),
    row(Gate::SetMemberLocalAddr, "SetMemberLocalAddr", ALPHA, "peers are dialled from any address here"),
    row(Gate::FastLeaseKeepAlive, "FastLeaseKeepAlive", BETA, ALWAYS),
    row(
        Gate::PriorityRequest,
        "PriorityRequest",
        ALPHA,
        "what the leader does by itself is never refused for load here",
    ),
];

const ALPHA: &str = "ALPHA";
const BETA: &str = "BETA";

const fn row(gate: Gate, name: &'static str, stage: &'static str, no_effect: &'static str) -> Row {
    Row {
        gate,
        name,
        stage,
        default: matches!(gate, Gate::TxnModeWriteWithSharedBuffer | Gate::FastLeaseKeepAlive),
        no_effect,
    }
}

/// Why a list of gates is refused, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GateError {
    #[error("missing bool value for {0}")]
    NoValue(String),
    #[error("invalid value of {0}={1}, err: strconv.ParseBool: parsing {1:?}: invalid syntax")]
    NotBool(String, String),
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
}

impl Default for FeatureGates {
    fn default() -> FeatureGates {
        FeatureGates { enabled: GATES.map(|row| row.default) }
    }
}

impl FeatureGates {
    /// Reads a list; of one gate's values the last counts, and a gate's own value before that of its stage.
    pub(super) fn parse(text: &str) -> Result<FeatureGates, GateError> {
        let mut gates = FeatureGates::default();
        let mut named = [None; GATES.len()];
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(GateError::NoValue(pair.trim().to_owned()));
            };
            let (name, value) = (name.trim(), value.trim());
            let enabled = go::parse_bool(value).map_err(|_| GateError::NotBool(name.to_owned(), value.to_owned()))?;
            match name {
                "AllAlpha" => gates.set_stage(ALPHA, enabled),
                "AllBeta" => gates.set_stage(BETA, enabled),
                _ => {
                    let at = GATES.iter().position(|row| row.name == name);
                    named[at.ok_or_else(|| GateError::Unknown(name.to_owned()))?] = Some(enabled);
                }
            }
        }
        for (enabled, named) in gates.enabled.iter_mut().zip(named) {
            *enabled = named.unwrap_or(*enabled);
        }
        Ok(gates)
    }

    fn set_stage(&mut self, stage: &str, enabled: bool) {
        for (row, gate) in GATES.iter().zip(&mut self.enabled) {
            if row.stage == stage {
                *gate = enabled;
            }
        }
    }

    /// Whether a feature is on.
    pub fn enabled(&self, gate: Gate) -> bool {
        GATES.iter().zip(self.enabled).any(|(row, enabled)| row.gate == gate && enabled)
    }

    /// Every gate's name, stage and state, for the metric that shows them; those of whole stages
    /// are shown as etcd shows them, off.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, bool)> {
        let stages = [("AllAlpha", ALPHA, false), ("AllBeta", BETA, false)];
        GATES.iter().zip(self.enabled).map(|(row, enabled)| (row.name, row.stage, enabled)).chain(stages)
    }

    /// The gates that were switched although that does nothing here, and why.
    pub(super) fn without_effect(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        GATES
            .iter()
            .zip(self.enabled)
            .filter(|(row, enabled)| row.default != *enabled)
            .map(|(row, _)| (row.name, row.no_effect))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_etcds() {
        let on: Vec<&str> = FeatureGates::default().iter().filter(|gate| gate.2).map(|gate| gate.0).collect();
        assert_eq!(on, ["TxnModeWriteWithSharedBuffer", "FastLeaseKeepAlive"]);
    }

    #[test]
    fn lists_are_read() {
        let gates = FeatureGates::parse("LeaseCheckpoint=true, FastLeaseKeepAlive=false,").unwrap();
        assert!(gates.enabled(Gate::LeaseCheckpoint));
        assert!(!gates.enabled(Gate::FastLeaseKeepAlive));
        let gates = FeatureGates::parse("PriorityRequest=false,AllAlpha=true,AllBeta=f").unwrap();
        assert!(gates.enabled(Gate::InitialCorruptCheck));
        assert!(!gates.enabled(Gate::PriorityRequest));
        assert!(!gates.enabled(Gate::FastLeaseKeepAlive));
        assert_eq!(FeatureGates::parse(""), Ok(FeatureGates::default()));
    }

    #[test]
    fn mistakes_are_refused_in_etcds_words() {
        for (text, message) in [
            ("X=true", "unrecognized feature gate: X"),
            ("LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
            (
                "LeaseCheckpoint=on",
                r#"invalid value of LeaseCheckpoint=on, err: strconv.ParseBool: parsing "on": invalid syntax"#,
            ),
        ] {
            assert_eq!(FeatureGates::parse(text).unwrap_err().to_string(), message);
        }
    }
}
