// One sqs-consumer: receives of ten, handled together, deleted with one call.
import { Consumer } from "sqs-consumer";

const workload = process.argv[2];
const pause = () => new Promise((done) => setTimeout(done, 50));

const consumer = Consumer.create({
  queueUrl: process.env.BENCH_QUEUE_URL,
  region: process.env.AWS_REGION,
  batchSize: 10,
  handleMessageBatch: async (messages) => {
    if (workload === "sleep") await Promise.all(messages.map(pause));
    return messages;
  },
});

for (const event of ["error", "processing_error", "timeout_error"]) {
  consumer.on(event, (problem) => {
    console.error(problem.message);
    process.exit(1);
  });
}
consumer.start();
