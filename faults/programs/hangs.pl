# Prints as many words as $2 says, then a tool call ($3: "none"; "done", which takes $4 seconds; "open",
# which never ends), and then nothing any more: $1 says how it hangs. $5 only marks the process.
use strict;
use warnings;

my ($manner, $words, $call, $seconds, $mark) = @ARGV;
$| = 1;
$SIG{TERM} = 'IGNORE' if $manner eq 'ignores';

sub event { my ($stream, $data) = @_; print qq({"event":"agent","stream":"$stream","data":{$data}}\n) }
sub doze { select undef, undef, undef, $_[0] }

for (1 .. $words) { event('assistant', '"delta":"word;"'); doze(0.01) }
if ($call ne 'none') {
  event('tool', '"phase":"start","toolCallId":"t","name":"works","args":{}');
  if ($call eq 'done') { doze($seconds); event('tool', '"phase":"result","toolCallId":"t","result":"done"') }
}
if ($manner eq 'stops') { kill 'STOP', $$ }
if ($manner eq 'closes-its-pipes') { close STDOUT; close STDERR }
if ($manner eq 'prints-blank-lines') { while (1) { print "\n"; doze(0.05) } }
sleep 1000 while 1;
