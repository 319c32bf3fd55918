// Preloaded into a server, it reaps the server's children, as another library of the process may.
// REAPS_CHILDREN=ignoring: by ignoring SIGCHLD; =waiting: by waiting for any child.
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *reap(void *how) {
  for (;;) {
    // Again and again: Node.js gives all signals their default effect when it starts.
    if (strcmp(how, "ignoring") == 0) signal(SIGCHLD, SIG_IGN);
    else while (waitpid(-1, NULL, 0) > 0);
    usleep(200);
  }
}

__attribute__((constructor)) static void start(void) {
  pthread_t thread;
  char *how = getenv("REAPS_CHILDREN");
  if (how != NULL) pthread_create(&thread, NULL, reap, strdup(how));
}
