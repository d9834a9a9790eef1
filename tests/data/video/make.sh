#!/bin/sh
# Makes the files of this folder with ffmpeg 5.1 of Debian 12, and of each the MD5 of its frames as RGB: ./make.sh
set -eu
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT
picture="testsrc2=size=128x96:rate=10:duration=2"
film="testsrc2=size=128x96:rate=25:duration=1.2"
sound="sine=frequency=440:sample_rate=22050:duration=2"
run() { ffmpeg -hide_banner -loglevel error -y -threads 1 -bitexact "$@"; }
mute() { run -f lavfi -i "$picture" -pix_fmt yuv420p "$@"; }
both() { run -f lavfi -i "$picture" -f lavfi -i "$sound" -pix_fmt yuv420p "$@"; }
seldom() { mute -c:v libx264 -crf 36 -g 8 -bf 2 -x264-params "$@"; }
x264="-c:v libx264 -crf 36 -g 8 -bf 2 -x264-params scenecut=0:threads=1"
aac="-c:a aac -b:a 16k"

both $x264 $aac h264.mp4
both $x264 $aac -movflags +faststart faststart.mp4
both $x264 $aac -movflags +frag_keyframe+empty_moov fragmented.mp4
both $x264 $aac h264.mov
both $x264 $aac -f mpegts h264.ts
mute $x264 b_frames_h264.avi
seldom open-gop=1:scenecut=0:threads=1 open_gop.mp4
seldom open-gop=1:scenecut=0:threads=1 open_gop.mkv
seldom intra-refresh=1:scenecut=0:threads=1 intra_refresh.mp4
seldom tff=1:scenecut=0:threads=1 -f mpegts interlaced.ts
mute $x264 -vf "setpts='(N*N*5+N*20)/1000/TB'" -fps_mode vfr vfr.mkv
mute $x264 "$scratch/upright.mp4"
run -i "$scratch/upright.mp4" -c copy -metadata:s:v:0 rotate=90 rotated.mp4
run -ss 1.1 -i "$scratch/upright.mp4" -c copy trimmed.mp4
mute $x264 -vf setsar=4/3 wide_pixels.mp4
mute $x264 -vf scale=out_color_matrix=bt709:out_range=tv -colorspace bt709 -color_primaries bt709 -color_trc bt709 -color_range tv bt709.mp4
mute $x264 -vf scale=out_range=pc -color_range pc full_range.mp4
run -f lavfi -i "$picture" -pix_fmt yuv420p10le -c:v libx264 -crf 38 -g 8 -x264-params threads=1 ten_bit.mp4
mute -c:v libx265 -crf 36 -x265-params keyint=8:min-keyint=8:bframes=2:open-gop=1:scenecut=0:pools=none:frame-threads=1:log-level=error -tag:v hvc1 hevc.mp4
mute -c:v libaom-av1 -crf 50 -b:v 0 -cpu-used 6 -g 8 av1.mp4
both -c:v libvpx-vp9 -crf 50 -b:v 0 -g 8 -c:a libopus -b:a 16k vp9.webm
for pass in 1 2; do
  mute -c:v libvpx -b:v 40k -auto-alt-ref 1 -lag-in-frames 16 -arnr-maxframes 5 -g 16 -pass $pass -passlogfile "$scratch/vp8" hidden_frames.webm
done
mute -c:v mpeg4 -qscale:v 14 -g 8 -bf 2 mpeg4.m4v
both -c:v mpeg4 -qscale:v 10 -g 8 -c:a libmp3lame -b:a 16k mpeg4.avi
mute -c:v mpeg4 -qscale:v 14 -g 8 -bf 2 b_frames.avi
run -f lavfi -i "$film" -f lavfi -i "$sound" -shortest -c:v mpeg1video -qscale:v 20 -g 8 -bf 2 -c:a mp2 -b:a 32k -f mpeg mpeg1.mpg
run -f lavfi -i "$film" -c:v mpeg2video -qscale:v 20 -g 8 -bf 2 -f vob mpeg2.mpeg
run -f lavfi -i "$film" -c:v mpeg2video -qscale:v 20 -g 8 -bf 2 -f mpegts mpeg2.ts
run -f lavfi -i "$film" -c:v mpeg2video -qscale:v 20 -g 8 -bf 2 -f mpeg2video mpeg2.m2v
both -c:v wmv2 -qscale:v 14 -g 8 -c:a wmav2 -b:a 24k wmv2.wmv
run -f lavfi -i "testsrc2=size=64x48:rate=10:duration=1.2" animation.gif
run -f lavfi -i "$sound" $aac sound_only.mp4
run -f lavfi -i "$sound" -f lavfi -i "testsrc2=size=64x48:rate=1:duration=1" -map 0 -map 1 $aac -c:v mjpeg -frames:v 1 -pix_fmt yuvj420p -disposition:v attached_pic cover.mp4

for file in *.*; do
  case $file in *.md|*.sh|*.framemd5|sound_only*|cover*) continue ;; esac
  ffmpeg -hide_banner -loglevel error -threads 1 -i "$file" -map 0:v:0 -fps_mode passthrough -pix_fmt rgb24 -f framemd5 - |
    grep -v '^#\(software\|format\|version\|hash\|extradata\|codec_id\|media_type\)' | tr -d ' ' >"$file.framemd5"
done
