// The main calls of the JavaScript client `etcd3`, against a server given as HOST:PORT.
//
// Each function is one case; an assertion that fails ends the process with its stack.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Etcd3, EtcdLockFailedError } from 'etcd3';

const [endpoint, mode] = process.argv.slice(2);

async function kv(client) {
  const at = client.namespace('javascript/kv/');
  await at.put('a').value('1');
  await at.put('b').value('2');
  await at.put('c').value('3');
  assert.equal(await at.get('a').string(), '1');
  assert.equal(await at.get('none').string(), null);
  assert.deepEqual(await at.getAll().sort('Key', 'Descend').limit(2).strings(), { c: '3', b: '2' });
  assert.deepEqual(await at.getAll().keys(), ['a', 'b', 'c']);
  assert.equal(await at.getAll().count(), 3);
  const before = await at.put('a').value('4').getPrevious();
  assert.equal(before.value.toString(), '1');
  const { revision } = (await at.get('a').exec()).header;
  await at.put('a').value('5');
  assert.equal(await at.get('a').revision(revision).string(), '4');
  assert.equal((await at.delete().key('a').exec()).deleted, '1');
  assert.equal((await at.delete().all().exec()).deleted, '2');
}

async function transaction(client) {
  const key = 'javascript/txn';
  const create = value => client.if(key, 'Create', '==', 0).then(client.put(key).value(value)).else(client.get(key));
  assert.equal((await create('1').commit()).succeeded, true);
  const second = await create('2').commit();
  assert.equal(second.succeeded, false);
  assert.equal(second.responses[0].response_range.kvs[0].value.toString(), '1');
  // Optimistic: both add one, and one of them has to try again.
  const add = () => client.stm().transact(async stm => {
    const value = Number(await stm.get(key).number());
    await stm.put(key).value(value + 1);
  });
  await Promise.all([add(), add()]);
  assert.equal(await client.get(key).number(), 3);
}

async function watch(client) {
  const watcher = await client.watch().prefix('javascript/watch/').withPreviousKV().create();
  const seen = [];
  const all = new Promise(resolve => watcher.on('data', response => {
    seen.push(...response.events.map(event => [event.type, event.kv.value.toString(), event.prev_kv?.value.toString()]));
    if (seen.length === 3) resolve();
  }));
  await client.put('javascript/watch/a').value('1');
  await client.put('javascript/watch/a').value('2');
  await client.delete().key('javascript/watch/a');
  await all;
  assert.deepEqual(seen, [['Put', '1', undefined], ['Put', '2', '1'], ['Delete', '', '2']]);
  await watcher.cancel();
  // From the past: what happened before the watch began.
  const first = (await client.get('javascript/txn').exec()).kvs[0].create_revision;
  const past = client.watch().key('javascript/txn').startRevision(first).watcher();
  const [event] = await once(past, 'put');
  assert.equal(event.value.toString(), '1');
  await past.cancel();
}

async function lease(client) {
  const lease = client.lease(30);
  await lease.put('javascript/lease').value('1');
  assert.equal(await lease.keepaliveOnce().then(answer => answer.TTL), '30');
  const id = await lease.grant();
  const told = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
  assert.deepEqual(told.keys.map(String), ['javascript/lease']);
  await lease.revoke();
  assert.equal(await client.get('javascript/lease').string(), null);
}

async function lock(client) {
  const held = await client.lock('javascript/lock').ttl(20).acquire();
  await assert.rejects(client.lock('javascript/lock').acquire(), EtcdLockFailedError);
  await held.release();
  assert.equal(await client.lock('javascript/lock').do(() => 'held'), 'held');
}

async function election(client) {
  const election = client.election('javascript/election', 20);
  const observer = await election.observe();
  const campaign = election.campaign('one');
  await once(campaign, 'elected');
  if (observer.leader() === undefined) await once(observer, 'change');
  assert.equal(observer.leader(), 'one');
  await campaign.proclaim('two');
  while (observer.leader() !== 'two') await once(observer, 'change');
  await campaign.resign();
  await observer.cancel();
}

async function cluster(client) {
  const { members } = await client.cluster.memberList({});
  assert.deepEqual(members.map(member => member.name), ['default']);
  const status = await client.maintenance.status();
  assert.equal(status.leader, members[0].ID);
  assert.match(status.version, /^3\./);
  const { revision } = (await client.get('javascript/txn').exec()).header;
  await client.kv.compact({ revision, physical: true });
  await assert.rejects(client.get('javascript/txn').revision(1).exec(), /required revision has been compacted/);
  const snapshot = await client.maintenance.snapshot();
  const [first] = await once(snapshot, 'data');
  // A bbolt file: its first page says so.
  assert.equal(first.blob.subarray(16, 20).toString('hex'), 'edda0ced');
  snapshot.cancel();
}

// Root and its password were set up by the caller.
async function users() {
  const client = new Etcd3({ hosts: endpoint, auth: { username: 'root', password: 'clients' } });
  const role = await client.role('javascript').create();
  await role.grant({ permission: 'Readwrite', range: client.range({ prefix: 'javascript/mine/' }) });
  const user = await client.user('javascript').create('secret');
  await user.addRole('javascript');
  assert.deepEqual((await user.roles()).map(role => role.name), ['javascript']);
  const own = new Etcd3({ hosts: endpoint, auth: { username: 'javascript', password: 'secret' } });
  await own.put('javascript/mine/a').value('1');
  assert.equal(await own.get('javascript/mine/a').string(), '1');
  await assert.rejects(own.put('javascript/other').value('1').exec(), /permission denied/);
  own.close();
  client.close();
}

const client = new Etcd3({ hosts: endpoint });
for (const run of mode === 'users' ? [users] : [kv, transaction, watch, lease, lock, election, cluster]) {
  await run(client);
  console.log(`javascript: ${run.name}`);
}
client.close();
