// Set-uid root: becomes another user than the server, prints a word, and waits.
#include <unistd.h>

static const char word[] = "{\"event\":\"agent\",\"stream\":\"assistant\",\"data\":{\"delta\":\"word\"}}\n";

int main(void) {
  if (setreuid(0, 0) != 0 || write(1, word, sizeof word - 1) < 0) return 1;
  for (;;) pause();
}
