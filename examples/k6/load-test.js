// A ramp to 20 users over 30 s, a minute of them, 30 s down: `BASE_URL=http://localhost:8000 k6 run examples/k6/load-test.js`.
import http from 'k6/http';
import { check, sleep } from 'k6';

const BASE_URL = __ENV.BASE_URL || 'http://localhost:8000';

export const options = {
  stages: [
    { duration: '30s', target: 20 },
    { duration: '1m', target: 20 },
    { duration: '30s', target: 0 },
  ],
  thresholds: {
    // Slow on purpose is tagged, and not bound by this.
    'http_req_duration{slow:no}': ['p(95)<500'],
    checks: ['rate==1.0'],
  },
};

const plain = { tags: { slow: 'no' } };
const json = { headers: { 'Content-Type': 'application/json' }, tags: { slow: 'no' } };

export default function () {
  const list = http.get(`${BASE_URL}/api/items`, plain);
  check(list, { 'items are listed': (answer) => answer.status === 200 && answer.json('total') >= 1 });

  // The name keeps the metrics of all ids together.
  const id = 1 + Math.floor(Math.random() * 100);
  const named = { tags: { slow: 'no', name: `${BASE_URL}/api/items/{id}` } };
  const item = http.get(`${BASE_URL}/api/items/${id}`, named);
  check(item, { 'the item is the one asked for': (answer) => answer.status === 200 && answer.json('id') === id });

  const order = http.post(`${BASE_URL}/api/orders`, JSON.stringify({ item_id: id, quantity: 2 }), json);
  check(order, { 'the order is taken': (answer) => answer.status === 201 && answer.json('status') === 'pending' });

  check(http.get(`${BASE_URL}/api/articles`, plain), { 'articles are listed': (answer) => answer.status === 200 });
  check(http.get(`${BASE_URL}/api/tags`, plain), { 'tags are listed': (answer) => answer.status === 200 });

  const slow = http.get(`${BASE_URL}/simulate/latency?ms=700`, { tags: { slow: 'yes' } });
  check(slow, { 'slow on purpose is answered': (answer) => answer.status === 200 });
  sleep(1);
}
