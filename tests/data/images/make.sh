#!/bin/sh
# Makes the pictures of this folder, with encoders that H5DAT does not use, and what they hold as PAM in expected/: see ORIGIN.md.
# Needs ImageMagick 6, netpbm, libjpeg-turbo, OpenJPEG, libheif, libavif, libwebp, libtiff, GraphicsMagick, librsvg, ffmpeg and Python.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

expect() { # the pixels of a file that was never lossy: expect NAME FILE [ImageMagick's options]
    name=$1 file=$2
    shift 2
    convert "$file" "$@" "pam:expected/$name.pam"
}

# What the pictures show: a gradient with a disc, 16 x 12.
convert -size 16x12 -depth 8 gradient:red-blue -fill lime +antialias -draw 'circle 8,6 11,6' -depth 8 -strip PNG24:"$work/rgb.png"
convert "$work/rgb.png" \( -size 12x16 gradient:white-gray20 -rotate 90 \) -compose CopyOpacity -composite -depth 8 -strip PNG32:"$work/rgba.png"
convert "$work/rgb.png" -colorspace Gray -depth 8 -strip PNG:"$work/grey.png"
convert "$work/grey.png" -threshold 40% -type bilevel -depth 1 PNG:"$work/bits.png"
convert -size 16x12 gradient:red-blue -fill lime +antialias -draw 'circle 8,6 11,6' -depth 16 -strip PNG48:"$work/rgb16.png"
convert "$work/rgb16.png" -colorspace Gray -depth 16 -strip PNG:"$work/grey16.png"
convert "$work/rgb.png" -flop PNG24:"$work/second.png"
convert "$work/rgb.png" -alpha opaque PNG32:"$work/opaque.png"
convert "$work/second.png" -alpha opaque PNG32:"$work/opaque_second.png"
convert "$work/rgb.png" -resize 8x6! -strip PNG24:"$work/small.png"
convert "$work/rgb.png" -crop 16x12+0+0 -gravity center -background navy -extent 16x16 -strip PNG32:"$work/square.png"
for name in rgb rgba opaque opaque_second rgb16 second small square; do expect $name "$work/$name.png"; done
for name in grey grey16 bits; do convert "$work/$name.png" "pgm:-" | pamtopam >expected/$name.pam; done
pngtopnm "$work/rgb.png" >"$work/rgb.ppm"
pngtopnm "$work/grey.png" >"$work/grey.pgm"
convert "$work/bits.png" "pbm:$work/bits.pbm"
pngtopnm "$work/rgb16.png" >"$work/rgb16.ppm"

# JPEG
cjpeg -quality 92 -dct int "$work/rgb.ppm" >picture.jpg
cjpeg -quality 92 -progressive "$work/rgb.ppm" >picture.jpeg
cjpeg -quality 92 -grayscale "$work/rgb.ppm" >picture.jpe
cjpeg -quality 92 -sample 1x1 -restart 1 "$work/rgb.ppm" >picture.jfif
convert "$work/rgb.png" -colorspace CMYK -quality 95 cmyk.jpg
python3 by_hand.py ycck cmyk.jpg ycck.jpg
convert "$work/rgb.png" -profile srgb.icc -quality 92 profile.jpg
for name in picture.jpg picture.jpeg picture.jpe picture.jfif profile.jpg; do djpeg -dct int -pnm "$name" | pamtopam >"expected/$name.pam"; done
for name in cmyk ycck; do convert $name.jpg -colorspace sRGB -depth 8 pam:expected/$name.pam; done

# PNG
pnmtopng -force "$work/rgb.ppm" >picture.png
pnmtopng -interlace "$work/rgb.ppm" >interlaced.png
pnmtopng "$work/rgb16.ppm" >rgb16.png
convert "$work/grey16.png" PNG:grey16.png
pnmtopng "$work/bits.pbm" >bits.png
convert "$work/rgba.png" +dither -colors 16 PNG8:palette_alpha.png
convert palette_alpha.png -depth 8 PNG32:"$work/palette_alpha.png" && expect palette_alpha "$work/palette_alpha.png"
python3 by_hand.py apng "$work/rgb.png" "$work/second.png" animated.png

# Bitmaps, icons and what old programs wrote
ppmtobmp -bpp 24 "$work/rgb.ppm" >picture.bmp
tail -c +15 picture.bmp >picture.dib
convert "$work/rgba.png" picture.ico
convert "$work/small.png" "$work/rgba.png" sizes.ico
python3 by_hand.py cur picture.ico picture.cur
python3 by_hand.py icns "$work/square.png" picture.icns
ppmtopcx "$work/rgb.ppm" >picture.pcx
convert "$work/rgb.png" "$work/second.png" picture.dcx
convert "$work/rgb.png" picture.sgi
convert "$work/rgb.png" -compress none sgi:picture.rgb
ppmtotga -rgb -name=picture "$work/rgb.ppm" >picture.tga
gm convert "$work/rgba.png" -compress none rgba.tga
convert "$work/rgba.png" "$work/rgba.png" -compress rle picture.psd
convert "$work/rgba.png" -define dds:mipmaps=0 -define dds:compression=none picture.dds
ffmpeg -v error -y -i "$work/rgba.png" -pix_fmt rgba picture.qoi

# netpbm's own
cp "$work/rgb.ppm" picture.ppm
cp "$work/grey.pgm" picture.pgm
cp "$work/bits.pbm" picture.pbm
pnmtoplainpnm "$work/rgb.ppm" >picture.pnm
cp "$work/rgb16.ppm" rgb16.ppm

# GIF, WebP and AVIF
convert "$work/rgb.png" +dither -colors 64 -strip picture.gif && expect picture.gif picture.gif -depth 8 -type truecolor
convert -loop 0 -delay 10 "$work/rgb.png" -delay 25 "$work/second.png" +dither -strip animated.gif
expect animated.gif.0 'animated.gif[0]' -depth 8 -type truecolor
expect animated.gif.1 animated.gif -coalesce -delete 0 -depth 8 -type truecolor
cwebp -quiet -lossless -exact "$work/rgba.png" -o picture.webp
img2webp -lossless -d 100 "$work/rgb.png" -d 250 "$work/second.png" -o animated.webp >/dev/null
avifenc --lossless "$work/rgb.png" picture.avif >/dev/null

# TIFF
gm convert "$work/rgb.png" -compress lzw picture.tiff
gm convert "$work/rgb.png" -compress zip picture.tif
convert "$work/bits.png" -compress group4 ccitt.tif
convert "$work/rgb.png" -compress jpeg -quality 92 jpeg.tif && convert jpeg.tif -depth 8 pam:expected/jpeg.tif.pam
convert "$work/rgb16.png" -compress none rgb16.tif
convert "$work/grey.png" -depth 32 -define quantum:format=floating-point -compress lzw float.tif
convert "$work/rgb.png" -define tiff:tile-geometry=16x16 -compress none tiled.tif
convert "$work/rgb.png" -compress none TIFF64:big.tif
convert "$work/rgb.png" "$work/small.png" -compress none pages.tif

# JPEG 2000
for end in jp2 j2k j2c jpc; do opj_compress -i "$work/rgb.ppm" -o picture.$end -n 3 >/dev/null; done
cp picture.jp2 picture.jpx
cp picture.jp2 picture.jpf
opj_compress -i "$work/rgb16.ppm" -o rgb16.jp2 -n 3 >/dev/null

# Those of cameras, drawings and science
heif-enc -L -p chroma=444 --matrix_coefficients=0 "$work/rgb.png" -o picture.heic >/dev/null
heif-enc -L -p chroma=444 --matrix_coefficients=0 "$work/rgba.png" -o picture.heif >/dev/null
heif-enc -L -p chroma=444 --matrix_coefficients=0 "$work/rgb.png" "$work/small.png" -o two.heic >/dev/null
heif-enc -L -p chroma=444 --matrix_coefficients=0 -b 10 "$work/rgb16.png" -o ten_bits.heic >/dev/null
cjpeg -quality 100 -sample 1x1 "$work/rgb.ppm" >"$work/plain.jpg"
python3 by_hand.py exif "$work/plain.jpg" "$work/turned.jpg"
heif-enc -L -p chroma=444 "$work/turned.jpg" -o exif_only.heic >/dev/null
rsvg-convert picture.svg -o "$work/svg.png" && expect picture.svg "$work/svg.png"
gzip -9nc picture.svg >picture.svgz
pnmtops -noturn -nocenter -equalpixels -dpi 72 "$work/rgb.ppm" 2>/dev/null >picture.eps
python3 by_hand.py dos_eps picture.eps preview.eps
pamtofits "$work/grey.pgm" >picture.fits
python3 by_hand.py fits numbers.fits
python3 by_hand.py bufr picture.bufr
python3 by_hand.py pxr "$work/rgb.ppm" picture.pxr
