// Clients that retry: 50 calls a second for a minute, each repeated up to 3 times, 100 ms apart, when it fails. Of one try
// 70 % fail, so 1 - 0.7^4 = 76 % of the calls succeed, at 2.5 times the load: what a retry storm is.
// `BASE_URL=http://localhost:8000 k6 run examples/k6/retry-storm.js`
import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Rate } from 'k6/metrics';

const BASE_URL = __ENV.BASE_URL || 'http://localhost:8000';
const RETRIES = 3;

const succeeded = new Rate('call_succeeded');
const retries = new Counter('call_retries');

export const options = {
  scenarios: {
    storm: {
      executor: 'constant-arrival-rate',
      rate: 50,
      timeUnit: '1s',
      duration: '1m',
      preAllocatedVUs: 50,
      maxVUs: 200,
    },
  },
  thresholds: { call_succeeded: ['rate>0.70'] },
};

export default function () {
  let answer = http.get(`${BASE_URL}/simulate/error?p=0.7`);
  for (let retry = 0; retry < RETRIES && answer.status >= 500; retry += 1) {
    sleep(0.1);
    retries.add(1);
    answer = http.get(`${BASE_URL}/simulate/error?p=0.7`);
  }
  succeeded.add(answer.status === 200);
}
