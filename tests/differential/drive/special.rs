//! Steps that are more than a call.

use std::time::Duration;

use mainstay_proto::etcdserverpb::{LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest};
use prost_reflect::{DynamicMessage, Value};
use tokio::time::sleep;

use mainstay_tests::schema::{flag, int};

use super::Run;
use crate::allowed::Answer;
use crate::report::Difference;
use crate::step::{Kind, Step};

/// How often it is asked whether a lease has ended, and the pause before.
const EXPIRES_IN: usize = 400;
const EXPIRING: Duration = Duration::from_millis(25);

impl Run {
    pub(super) async fn special(&mut self, step: &Step) -> Result<(), Difference> {
        match step.name().as_str() {
            "Expire" => self.expire(step).await,
            "Scan" => self.scan(step.client).await,
            "Contend" => self.contend(step).await,
            "Hangup" if flag(&step.request, "half") => {
                if let Some(watching) = &mut self.watchings[step.client] {
                    watching.half_close();
                }
                Ok(())
            }
            "Hangup" => self.hang_up(step.client).await,
            "Token" => {
                let token = step.request.get_field_by_name("token");
                let token = token.as_ref().and_then(|token| token.as_str()).unwrap_or_default();
                self.sides.iter_mut().for_each(|side| side.take_token(step.client, token));
                Ok(())
            }
            other => unreachable!("script.proto has no {other}"),
        }
    }

    /// A call with a generated message.
    pub(super) async fn ask(
        &mut self,
        client: usize,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<Answer, Difference> {
        let step = Step::call(client, method, request);
        let Kind::Method(method) = &step.kind else { unreachable!("it is a call") };
        let requests = self.resolved(&step.request);
        self.call(client, method, &requests).await
    }

    /// A lease lives through this step only: at which step of several it ends would be open.
    async fn expire(&mut self, step: &Step) -> Result<(), Difference> {
        let [request, _] = self.resolved(&step.request);
        let id = int(&request, "ID");
        let grant = LeaseGrantRequest { id, ttl: int(&request, "TTL") };
        if self.ask(step.client, "Lease.LeaseGrant", &grant).await?.code != Some(0) {
            return Ok(());
        }
        for key in keys(&request) {
            let put = PutRequest { key, value: "expires".into(), lease: id, ..PutRequest::default() };
            self.ask(step.client, "KV.Put", &put).await?;
        }
        let step = Step::call(step.client, "Lease.LeaseTimeToLive", &LeaseTimeToLiveRequest { id, keys: false });
        let Kind::Method(method) = &step.kind else { unreachable!("it is a call") };
        let mut left = [String::new(), String::new()];
        for (side, left) in self.sides.iter().zip(&mut left) {
            for _ in 0..EXPIRES_IN {
                let answer = side.call(step.client, method, &step.request).await;
                *left = answer.messages.first().map_or(answer.text, |left| int(left, "TTL").to_string());
                if !left.starts_with(|c: char| c.is_ascii_digit()) {
                    break;
                }
                sleep(EXPIRING).await;
            }
        }
        if left[0] != left[1] {
            return Err(Difference::between("time left of a lease that has to end", left));
        }
        // Nobody has told the revision yet in which the keys went.
        let read = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() };
        self.ask(step.client, "KV.Range", &read).await.map(drop)
    }

    async fn scan(&mut self, client: usize) -> Result<(), Difference> {
        for revision in self.compacted.max(1)..=self.now {
            let read = RangeRequest { key: "\0".into(), range_end: "\0".into(), revision, ..RangeRequest::default() };
            self.ask(client, "KV.Range", &read).await?;
        }
        Ok(())
    }
}

/// The keys that a request names.
fn keys(request: &DynamicMessage) -> Vec<bytes::Bytes> {
    let keys = request.get_field_by_name("keys");
    let keys = keys.as_ref().and_then(|keys| keys.as_list()).unwrap_or_default();
    keys.iter().filter_map(Value::as_bytes).cloned().collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_message_of_the_script_is_a_step() {
        for name in ["Contend", "Expire", "Scan", "Hangup", "Token"] {
            assert!(super::Step::special(0, name, "").is_ok(), "{name}");
        }
    }
}
