/* Writes numbered records to a log: writer PATH RATE LINGER_MS, until its standard input closes; then it prints how
   many. On SIGHUP it opens its path anew, as servers do, after going on for LINGER_MS with the old file. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t hup;
static void on_hup(int signal) { (void)signal; hup = 1; }

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

static int open_log(const char *path) { return open(path, O_WRONLY | O_APPEND | O_CREAT, 0640); }

int main(int count, char **arguments) {
  if (count != 4) return 2;
  const char *path = arguments[1];
  double rate = atof(arguments[2]), linger = atof(arguments[3]) / 1000, reopen_at = 0;
  struct sigaction action = {.sa_handler = on_hup, .sa_flags = SA_RESTART};
  sigaction(SIGHUP, &action, NULL);
  int log = open_log(path);
  printf("ready\n");
  fflush(stdout);
  double began = now();
  long written = 0;
  char line[512];
  for (;;) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    if (poll(&input, 1, 1) > 0) break;
    if (hup && reopen_at == 0) { hup = 0; reopen_at = now() + linger; }
    if (reopen_at > 0 && now() >= reopen_at) { reopen_at = 0; close(log); log = open_log(path); }
    for (long due = (long)((now() - began) * rate); written < due; written++) {
      time_t second = time(NULL);
      char stamp[32];
      strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", gmtime(&second));
      int length = snprintf(line, sizeof line,
          "{\"timestamp\":\"%s.000000Z\",\"tool\":\"echo\",\"params\":{\"text\":\"hello\"},\"status\":\"success\","
          "\"duration_ms\":1.5,\"session_id\":\"s%ld\",\"key_id\":\"k%ld\",\"call_id\":\"%ld\"}\n",
          stamp, written % 50000, written % 5000, written);
      for (int done = 0; done < length;) {
        ssize_t part = write(log, line + done, length - done);
        if (part < 0) return 1;
        done += part;
      }
    }
  }
  printf("%ld %.0f\n", written, written / (now() - began));
  return 0;
}
