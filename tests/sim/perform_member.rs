//! Calls about the members.

use mainstay_client::{Client, Error};
use mainstay_proto::etcdserverpb::{Member, ResponseHeader};
use mainstay_tests::history::{Listed, MemberCall, MemberReply};

/// Asks a server.
pub(crate) async fn perform(
    client: &Client,
    call: &MemberCall,
) -> Result<(Option<ResponseHeader>, MemberReply), Error> {
    let told = |members: Vec<Member>, added| MemberReply { added, members: members.into_iter().map(listed).collect() };
    match call {
        MemberCall::List { linearizable: true } => {
            client.member_list().await.map(|response| (response.header, told(response.members, None)))
        }
        MemberCall::List { linearizable: false } => {
            client.member_list_local().await.map(|response| (response.header, told(response.members, None)))
        }
        MemberCall::Add { urls, learner } => {
            let added = match learner {
                true => client.member_add_learner(urls.clone()).await,
                false => client.member_add(urls.clone()).await,
            };
            added.map(|response| {
                let id = response.member.map(|member| member.id);
                (response.header, told(response.members, id))
            })
        }
        MemberCall::Remove { id } => {
            client.member_remove(*id).await.map(|response| (response.header, told(response.members, None)))
        }
        MemberCall::Promote { id } => {
            client.member_promote(*id).await.map(|response| (response.header, told(response.members, None)))
        }
        MemberCall::Update { id, urls } => {
            let updated = client.member_update(*id, urls.clone()).await;
            updated.map(|response| (response.header, told(response.members, None)))
        }
    }
}

fn listed(member: Member) -> Listed {
    Listed { id: member.id, name: member.name, peer_urls: member.peer_ur_ls, is_learner: member.is_learner }
}
