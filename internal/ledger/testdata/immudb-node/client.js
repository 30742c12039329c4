// Runs npm's immudb-node, a client of the 1.0 era that checks every proof it
// is given, against a ledger:
//
//   node client.js HOST PORT STATE-FILE
//
// Exits 1 at the first answer that is not as expected.
const assert = require('node:assert')
const ImmudbClient = require('immudb-node').default

const [host, port, rootPath] = process.argv.slice(2)

async function main() {
  const cl = new ImmudbClient({ host, port: Number(port), rootPath })
  assert(await cl.login({ user: 'immudb', password: 'immudb' }), 'login')
  await cl.createDatabase({ databasename: 'node' })
  const list = await cl.listDatabases()
  assert.deepStrictEqual(list.databasesList.map((d) => d.databasename), ['defaultdb', 'node'])
  assert((await cl.useDatabase({ databasename: 'node' })).token, 'useDatabase')
  assert.strictEqual((await cl.health()).status, true)
  assert.strictEqual((await cl.currentState()).db, 'node')

  assert.strictEqual((await cl.set({ key: 'a', value: '1' })).id, 1)
  assert.strictEqual((await cl.get({ key: 'a' })).value, '1')
  // Each of these verifies a proof from the state remembered before it.
  for (let i = 2; i <= 20; i++) {
    assert.strictEqual((await cl.verifiedSet({ key: `k${i}`, value: `v${i}` })).id, i)
    assert.strictEqual((await cl.verifiedGet({ key: `k${1 + (i + 1) / 2 | 0}` })).tx, 1 + (i + 1) / 2 | 0)
  }
  assert.strictEqual((await cl.verifiedSet({ key: 'a', value: '2' })).id, 21)
  assert.strictEqual((await cl.verifiedGet({ key: 'a' })).value, '2')
  assert.strictEqual((await cl.verifiedGetAt({ key: 'a', attx: 1 })).value, '1')
  assert.strictEqual((await cl.setAll({ kvsList: [{ key: 'x', value: '1' }, { key: 'y', value: '2' }] })).nentries, 2)
  assert.strictEqual((await cl.verifiedTxById({ tx: 22 })).entriesList.length, 2)

  const scan = await cl.scan({ seekkey: '', prefix: 'k1', desc: false, limit: 5, sincetx: 0, nowait: false })
  assert.deepStrictEqual(scan.entriesList.map((e) => e.key), ['k10', 'k11', 'k12', 'k13', 'k14'])
  const history = await cl.history({ key: 'a', offset: 0, limit: 10, desc: false, sincetx: 0 })
  assert.deepStrictEqual(history.entriesList.map((e) => e.value), ['1', '2'])
  assert.strictEqual((await cl.count({ prefix: 'k' })).count, 19)
  assert.strictEqual((await cl.txScan({ initialtx: 3, limit: 4, desc: false })).txsList.length, 4)
  await cl.logout()
  await cl.shutdown()
}

main().catch((err) => {
  console.error(err)
  process.exit(1)
})
